"""Checksums of the files in a folder, so that damage is noticed before a folder is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ciea_hf.files import file_checksum, flush

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

CHECKSUMS = ".checksums.json"  # hidden, so that it is not published


def write_checksums(folder: Path, ignored: Collection[str] = ()) -> None:
    """Write `.checksums.json`, the SHA-256 hash of every file by relative path, and flush the folder to the disk.

    Args:
        folder: The folder; files in its subfolders are included.
        ignored: Relative paths of files that may change later.
    """
    checksums = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != CHECKSUMS and name not in ignored:
            checksums[name] = file_checksum(path)
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=2) + "\n", encoding="utf-8")
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def find_damage(folder: Path, required: Iterable[str] = ()) -> str | None:
    """Compare the files of a folder with its `.checksums.json`.

    Args:
        folder: Folder written with [`write_checksums`].
        required: Relative paths that must be among the files.

    Returns:
        The first file that is missing or changed, and how; `None` if the folder is intact.
    """
    path = folder / CHECKSUMS
    try:
        expected = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{CHECKSUMS} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return f"{CHECKSUMS} cannot be read: {shorten(error)}"
    if not isinstance(expected, dict) or not set(required) <= expected.keys():
        return f"{CHECKSUMS} is incomplete"
    for name, checksum in expected.items():
        try:
            if file_checksum(folder / name) != checksum:
                return f"{name} was changed or truncated"
        except FileNotFoundError:
            return f"{name} is missing"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {shorten(error)}"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Raises:
        ValueError: If the file contains anything else; the message names it.
        OSError: If the file cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {shorten(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it must contain an object; got a {type(content).__name__}")  # noqa: TRY004
    return content


def shorten(error: BaseException, length: int = 200) -> str:
    """Return the message of an error in one line of limited length."""
    return " ".join(str(error).split())[:length] or type(error).__name__
