"""Inputs of `ciea encode` and `ciea search`: images, folders of images, and files of texts or objects."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ciea_hf.data.parsing import Entry

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")


class Item(NamedTuple):
    """One input: its id, text and path of an image, either of which may be missing."""

    id: str
    text: str | None = None
    image: str | None = None


def read_items(name: str) -> Iterator[Item]:
    """Read the inputs of one argument.

    Args:
        name: Path of an image, a folder of images, a .txt or a .jsonl file; or `-` for standard input.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it contains no inputs, the type of file is unsupported or a line is invalid; the message names
            file and line.
    """
    empty = True
    for item in _read(name):
        empty = False
        yield item
    if empty:
        raise ValueError(f"{'standard input' if name == '-' else name} contains no inputs")


def _read(name: str) -> Iterator[Item]:
    path = Path(name)
    if name == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        yield from _texts(_decoded(getattr(sys.stdin, "buffer", sys.stdin)), "stdin")
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
                yield Item(str(file), image=str(file))
    elif not path.exists():
        raise FileNotFoundError(f"{name} not found; give a text with --text")
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        yield Item(name, image=name)
    elif path.suffix.lower() in (".txt", ".jsonl"):
        yield from _lines(path)
    else:
        raise ValueError(f"INPUT must be an image ({', '.join(IMAGE_SUFFIXES)}), .txt, .jsonl or a folder; got {name}")


def _lines(path: Path) -> Iterator[Item]:
    from ciea_hf.data.issues import raise_issue
    from ciea_hf.data.parsing import json_lines, text_lines

    if path.suffix.lower() == ".txt":
        for location, line in text_lines(path, raise_issue):
            yield Item(f"{path.name}:{location.number}", line)
    else:
        for entry in json_lines(path, raise_issue):
            yield _object(entry, path)


def _decoded(lines: Iterable[bytes | str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line if isinstance(line, str) else line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"stdin:{number}: the line is not UTF-8: {error}") from None


def _texts(lines: Iterable[str], name: str) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Item(f"{name}:{number}", line.strip())


def _object(entry: Entry, path: Path) -> Item:
    """Create the input of a line, whose fields may have the names that documents of data sets have."""
    from ciea_hf.data.issues import raise_issue
    from ciea_hf.data.readers.fields import IDS, own_document, required_id

    key = next((key for key in IDS if key in entry.value), None)
    name = f"{path.name}:{entry.location.number}" if key is None else required_id(entry, key, raise_issue)
    for field in ("text", "image"):
        value = entry.value.get(field)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{entry.location}: {field!r} must be a string; got {str(value)[:80]}")
    image: Any = entry.value.get("image") or None
    document = own_document(entry, str(name), image, raise_issue)
    if image is None and not document.text:
        raise ValueError(f'{entry.location}: must be an object with "text" or "image"')
    if image is not None:
        image = str(path.parent / image)
        if not _is_file(image):
            raise FileNotFoundError(f"{entry.location}: image {image[:200]} not found")
    return Item(str(name), document.text or None, image)


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # longer than a path can be
        return False
