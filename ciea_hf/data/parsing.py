"""Text files of the field, read line by line or entry by entry: JSON lines, large JSON documents, judgements.

All functions return line numbers with what they read and pass issues to an [`IssueHandler`], so that
one bad line can be an error for one caller and an entry of a list for another. A byte order mark, Windows line ends and
blank lines are no faults.
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
_LONGEST_ENTRY = 64 << 20  # characters of one entry of a JSON document; a fault, beyond
_JUDGED = {3: (0, 1, 2), 4: (0, 2, 3), 5: (0, 2, 3)}  # number of columns: where query, document and judgement are
_SPACE = re.compile(r"\s*")


class Entry(NamedTuple):
    """An object of a JSON file, with the line it begins in; its key where the file is one large object."""

    place: Location
    value: dict[str, Any]
    key: str | None = None


class Judgement(NamedTuple):
    """How relevant a document is to a query; a score above 0 is relevant."""

    place: Location
    query: str
    document: str
    score: int


def text_lines(path: Path, report: IssueHandler = raise_on_error) -> Iterator[tuple[Location, str]]:
    """Iterate over the lines that are not blank, stripped, each with its place."""
    if not path.is_file():
        report("missing-file", Location(str(path)), None, "there is no such file")
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            place = Location(str(path), number)
            try:
                line = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8").strip()
            except UnicodeDecodeError as error:
                report("unreadable", place, None, f"the line is not UTF-8: {error}")
                continue
            if line:
                yield place, line


def json_lines(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Entry]:
    """Iterate over the objects of a file of JSON lines."""
    for place, line in text_lines(path, report):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
            report("unreadable", place, None, f"the line is not JSON: {error}")
            continue
        if not isinstance(value, dict):
            report("unreadable", place, None, f"the line must hold a JSON object; got {type(value).__name__}")
        elif _is_storable(value, place, None, report):
            yield Entry(place, value)


def _is_storable(value: Any, place: Location, key: str | None, report: IssueHandler) -> bool:
    """Whether a value's texts are Unicode; JSON can name halves of characters, which no table holds."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        report("unreadable", place, key, f"a text holds half of a surrogate pair: {error.object[error.start]!r}")
        return False
    return True


def json_entries(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Entry]:
    """Iterate over the objects in a JSON document that is one list or one object, without holding it whole.

    A file of JSON lines is read as such.
    """
    if not path.is_file():
        report("missing-file", Location(str(path)), None, "there is no such file")
        return
    with path.open(encoding="utf-8-sig") as file:
        reader = _DocumentReader(file, str(path))
        try:
            if not reader.begins_document():
                yield from json_lines(path, report)
                return
            for entry in reader.entries():
                if not isinstance(entry.value, dict):
                    report("unreadable", entry.place, entry.key, "must be a JSON object")
                elif _is_storable(entry.value, entry.place, entry.key, report):
                    yield entry
        except (ValueError, RecursionError) as error:
            report("unreadable", reader.place, None, f"is not JSON from here on: {error}")


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
    def place(self) -> Location:
        return Location(self._name, self._line)

    def begins_document(self) -> bool:
        """Whether this is one list, or one object of objects, and no sequence of JSON lines."""
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
            place = self.place
            yield Entry(place, self._value(), key)
            if self._peek() != close:
                self._take(",")
            self._drop()

    def _more(self) -> bool:
        text = self._file.read(_CHUNK + len(self._buffer) - self._position)  # doubles: a long entry is decoded seldom
        self._buffer += text
        return bool(text)

    def _drop(self) -> None:
        if self._position > _CHUNK:
            self._buffer, self._position = self._buffer[self._position :], 0

    def _advance(self, position: int) -> None:
        self._line += self._buffer.count("\n", self._position, position)
        self._position = position

    def _peek(self) -> str:
        """Return the next character that is no white space, `""` at the end."""
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
            if end < len(self._buffer) or not self._more():  # a number may go on in the next chunk
                self._advance(end)
                return value


def judgements(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Judgement]:
    """Iterate over a file of judgements, in any of the forms in use.

    Three columns `query document relevance` (UniVL-DR, BEIR; a header is skipped), four (TREC, the second is ignored)
    or five, with a task at the end (M-BEIR), separated by tabs, so that ids may hold blanks, or else by white space.
    """
    for place, line in text_lines(path, report):
        columns = [column.strip() for column in line.split("\t")]
        columns = columns if len(columns) in _JUDGED else line.split()
        if place.number == 1 and columns[-1] == "score":
            continue
        if len(columns) not in _JUDGED:
            report("unreadable", place, None, f"judgements have 3, 4 or 5 columns; got {len(columns)}")
            continue
        query, document, text = (columns[index] for index in _JUDGED[len(columns)])
        try:
            score = int(text)
        except ValueError:
            report("unreadable", place, query, f"{text!r} is no whole number")
            continue
        yield Judgement(place, query, document, score)
