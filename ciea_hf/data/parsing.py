"""Streaming parsers of JSON lines, large JSON documents and judgements.

All functions return locations with their results and pass issues to an [`IssueHandler`], so that an invalid line can be
an error for one caller and an entry of a list for another. A byte order mark, Windows line endings and blank lines are
accepted.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.data.issues import IssueHandler, Location, raise_on_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20  # characters
_LONGEST_ENTRY = 64 << 20  # maximum number of characters of an entry of a JSON document
_JUDGED = {3: (0, 1, 2), 4: (0, 2, 3), 5: (0, 2, 3)}  # number of columns -> positions of query, document and judgement
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


def text_lines(path: Path, report: IssueHandler = raise_on_error) -> Iterator[tuple[Location, str]]:
    """Yield the stripped lines that are not blank, with their locations."""
    if not path.is_file():
        report("missing-file", Location(str(path)), None, "file not found")
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            location = Location(str(path), number)
            try:
                line = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8").strip()
            except UnicodeDecodeError as error:
                report("unreadable", location, None, f"the line is not UTF-8: {error}")
                continue
            if line:
                yield location, line


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


def judgements(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Judgement]:
    """Yield the judgements of a file in any of the common formats.

    Lines have three columns `query document relevance` (UniVL-DR, BEIR; a header is skipped), four (TREC, the second is
    ignored) or five, the last of which is a task (M-BEIR), separated by tabs, in which case ids may contain spaces, or
    by white space.
    """
    for location, line in text_lines(path, report):
        columns = [column.strip() for column in line.split("\t")]
        columns = columns if len(columns) in _JUDGED else line.split()
        if location.number == 1 and columns[-1] == "score":
            continue
        if len(columns) not in _JUDGED:
            report("unreadable", location, None, f"a judgement must have 3, 4 or 5 columns; got {len(columns)}")
            continue
        query, document, text = (columns[index] for index in _JUDGED[len(columns)])
        try:
            score = int(text)
        except ValueError:
            report("unreadable", location, query, f"{text!r} is not an integer")
            continue
        yield Judgement(location, query, document, score)
