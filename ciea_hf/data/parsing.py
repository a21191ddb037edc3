"""Streaming parsers of JSON lines, large JSON documents and judgements.

All functions return locations with their results and pass issues to an [`IssueHandler`], so that an invalid line can be
an error for one caller and an entry of a list for another. A byte order mark, Windows line endings and blank lines are
accepted.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.data.issues import IssueHandler, Location, raise_on_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20  # characters
_LONGEST_ENTRY = 64 << 20  # maximum number of characters of an entry of a JSON document
_SPACE = re.compile(r"\s*")


class Entry(NamedTuple):
    """An object of a JSON file, with the line it begins on, and its key if the file is one large object."""

    location: Location
    value: dict[str, Any]
    key: str | None = None


class Judgement(NamedTuple):
    """Relevance of a document to a query; a score above 0 is relevant."""

    location: Location
    query: str
    document: str
    score: int


def integer(value: Any) -> int | None:
    """Return an integer that is written as one, or as a float; `None` for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", text):
            return int(text.partition(".")[0])
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def text_lines(path: Path, report: IssueHandler = raise_on_error, strip: bool = True) -> Iterator[tuple[Location, str]]:
    """Yield the lines that are not blank, with their locations.

    Args:
        path: Path of the file; one that ends in `.gz` is decompressed.
        report: Handler of issues.
        strip: Whether to remove white space at both ends; else only that of the line's end.
    """
    if not path.is_file():
        report("missing-file", Location(str(path)), None, "file not found")
        return
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                location = Location(str(path), number)
                try:
                    line = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8")
                except UnicodeDecodeError as error:
                    encoding = (
                        " (it looks like UTF-16)" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
                    )
                    report("unreadable", location, None, f"the line is not UTF-8{encoding}: {error}")
                    continue
                line = line.strip() if strip else line.rstrip("\r\n")
                if line.strip():
                    yield location, line
    except (OSError, EOFError, zlib.error) as error:  # damaged gzip files raise all of these
        report("unreadable", Location(str(path), number + 1), None, f"cannot be read from here: {error}")


def json_lines(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Entry]:
    """Yield the objects of a JSON lines file."""
    for location, line in text_lines(path, report):
        try:
            value = json.loads(line)
        except (
            ValueError,
            RecursionError,
        ) as error:  # also for numbers with thousands of digits and deeply nested lists
            report("unreadable", location, None, f"invalid JSON: {error}")
            continue
        if not isinstance(value, dict):
            report("unreadable", location, None, f"a line must be a JSON object; got {type(value).__name__}")
        elif _is_storable(value, location, None, report):
            yield Entry(location, value)


def _is_storable(value: Any, location: Location, key: str | None, report: IssueHandler) -> bool:
    """Return whether all texts are valid Unicode; JSON can escape lone surrogates, which tables cannot store."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        report("unreadable", location, key, f"a text contains a lone surrogate: {error.object[error.start]!r}")
        return False
    return True


def json_entries(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Entry]:
    """Yield the objects of a JSON document that is one list or one object, without loading all of it.

    A JSON lines file is read as such.
    """
    if not path.is_file():
        report("missing-file", Location(str(path)), None, "file not found")
        return
    with path.open(encoding="utf-8-sig") as file:
        reader = _DocumentReader(file, str(path))
        try:
            if not reader.begins_document():
                yield from json_lines(path, report)
                return
            for entry in reader.entries():
                if not isinstance(entry.value, dict):
                    report("unreadable", entry.location, entry.key, "must be a JSON object")
                elif _is_storable(entry.value, entry.location, entry.key, report):
                    yield entry
        except (ValueError, RecursionError) as error:
            report("unreadable", reader.location, None, f"invalid JSON from here: {error}")


class _DocumentReader:
    """Decodes the entries of one JSON list or object, buffering about one entry."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._buffer = ""
        self._position = 0
        self._line = 1
        self._decoder = json.JSONDecoder()

    @property
    def location(self) -> Location:
        return Location(self._name, self._line)

    def begins_document(self) -> bool:
        """Return whether the file is one list or one object of objects, rather than JSON lines."""
        first = self._peek()
        if first == "[":
            return True
        if first != "{":
            raise json.JSONDecodeError("Expecting a list or an object", self._buffer, self._position)
        start, line = self._position, self._line
        self._take("{")
        nested = self._peek() == "}"
        if self._peek() == '"':
            self._value()
            self._take(":")
            nested = self._peek() == "{"
        self._position, self._line = start, line
        return nested

    def entries(self) -> Iterator[Entry]:
        keyed = self._peek() == "{"
        close = "}" if keyed else "]"
        self._take("{" if keyed else "[")
        while self._peek() != close:
            key = str(self._value()) if keyed else None
            if keyed:
                self._take(":")
            self._peek()
            location = self.location
            yield Entry(location, self._value(), key)
            if self._peek() != close:
                self._take(",")
            self._drop()

    def _more(self) -> bool:
        text = self._file.read(
            _CHUNK + len(self._buffer) - self._position
        )  # doubling, so that a long entry is decoded only a few times
        self._buffer += text
        return bool(text)

    def _drop(self) -> None:
        if self._position > _CHUNK:
            self._buffer, self._position = self._buffer[self._position :], 0

    def _advance(self, position: int) -> None:
        self._line += self._buffer.count("\n", self._position, position)
        self._position = position

    def _peek(self) -> str:
        """Return the next character that is not white space; `""` at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            self._advance(match.end() if match else self._position)
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise json.JSONDecodeError(f"Expecting {character!r}", self._buffer, self._position)
        self._advance(self._position + 1)

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError:
                if len(self._buffer) - self._position > _LONGEST_ENTRY or not self._more():
                    raise
                continue
            if end < len(self._buffer) or not self._more():  # a number may continue in the next chunk
                self._advance(end)
                return value
