"""Checksums of the files of an index folder, which are looked at when a file is used for the first time.

The result is kept in the folder, so that a file is read again only if its size, time or place has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from ciea_hf.files import file_checksum, write_json
from ciea_hf.retrieval.location import replace_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ciea_hf.retrieval.location import Location

logger = logging.getLogger(__name__)

SEEN = ".checked.json"
CHECKSUM = "checksum"


def write_checked(path: Location, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with the checksum of its content as a further key."""
    replace_json(path, {**content, CHECKSUM: _content_checksum(content)})


def read_checked(path: Location) -> dict[str, Any]:
    """Read a JSON object that [`write_checked`] has written.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it cannot be read, or its content has changed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or CHECKSUM not in content:
        raise ValueError(f"{path} has an unexpected format")
    if content.pop(CHECKSUM) != _content_checksum(content):
        raise ValueError(f"{path} differs from its checksum")
    return content


def _content_checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def changed_files(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Compare files with their checksums, except those that were compared before and have not been touched since.

    Args:
        folder: Folder of the files, which keeps what was compared if it can be written.
        expected: Checksum of each file, by its path in the folder.

    Returns:
        The files that differ.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    seen = _seen(folder / SEEN)
    stamps, changed = {}, []
    for name, checksum in expected.items():
        state = (folder / name).stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ino, checksum]
        if seen.get(name) != stamp and file_checksum(folder / name) != checksum:
            changed.append(name)
        else:
            stamps[name] = stamp
    if any(seen.get(name) != stamp for name, stamp in stamps.items()):
        kept = {name: stamp for name, stamp in seen.items() if (folder / name).exists()}
        try:
            write_json(folder / SEEN, {**kept, **stamps}, indent=None)
        except OSError as error:
            logger.info("the files of %s are compared with their checksums at every use: %s", folder, error)
    return changed


def _seen(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
