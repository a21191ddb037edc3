"""Files of judgements. Each file has one form, which is decided by its header or its first line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.data.issues import IssueHandler, raise_on_error
from ciea_hf.data.parsing import Judgement, integer, json_lines, text_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ciea_hf.data.parsing import Entry

QUERY_IDS = ("query-id", "query_id", "queryid", "qid", "query", "topic", "topic_id")
DOCUMENT_IDS = ("corpus-id", "corpus_id", "docid", "doc-id", "doc_id", "docno", "did", "document", "document_id", "pid")
SCORES = ("score", "relevance", "rel", "label", "grade", "judgement", "judgment")
POSITIONS = {3: (0, 1, 2), 4: (0, 2, 3), 5: (0, 2, 3)}  # number of columns -> positions of query, document and score
_BLANKS = re.compile(r"[ \t]+")  # a no-break space is part of an id


class Form(NamedTuple):
    """Form of a file of judgements.

    Attributes:
        separator: The tab, or `None` for blanks.
        columns: Number of columns.
        query: Position of the query.
        document: Position of the document.
        score: Position of the score; `None` if the file has none, and all judgements are 1.
        iteration: Position of TREC's second column, which must be a number or `Q0`; `None` without it.
    """

    separator: str | None
    columns: int
    query: int
    document: int
    score: int | None
    iteration: int | None = None

    def split(self, line: str) -> list[str]:
        """Split a line into columns."""
        if self.separator is None:
            return _BLANKS.split(line.strip(" \t"))
        return [column.strip(" ") for column in line.split(self.separator)]


def judgements(path: Path, report: IssueHandler = raise_on_error) -> Iterator[Judgement]:
    """Yield the judgements of a file in any of the common formats.

    Lines have three columns `query document relevance` (UniVL-DR, BEIR), four (TREC, the second is ignored) or five,
    the last of which is a task (M-BEIR), separated by tabs, in which case ids may contain spaces, or by blanks. A
    header names the columns, in any order. All lines have the form of the first. Lines that begin with `#` are
    comments. Files that end in `.jsonl` are JSON lines, and files that end in `.gz` are compressed.
    """
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        yield from _json_judgements(path, report)
        return
    form: Form | None = None
    for location, line in text_lines(path, report, strip=False):
        if line.startswith("#"):
            continue
        if form is None:
            form, is_header = _form_of(line)
            if is_header:
                continue
        if form is None:
            report("unreadable", location, None, f"a judgement must have 3, 4 or 5 columns; got {len(line.split())}")
            continue
        columns = form.split(line)
        if len(columns) != form.columns:
            kind = "tabs" if form.separator else "blanks"
            message = f"a judgement must have {form.columns} columns separated by {kind}, as above; got {len(columns)}"
            report("unreadable", location, None, message)
            continue
        query, document = columns[form.query], columns[form.document]
        score = 1 if form.score is None else integer(columns[form.score])
        fault = _fault(form, columns, score)
        if fault or score is None:
            report("unreadable", location, query or None, fault)
        else:
            yield Judgement(location, query, document, score)


def _fault(form: Form, columns: Sequence[str], score: int | None) -> str:
    """Return what is wrong with a line; empty if nothing is."""
    query, document = columns[form.query], columns[form.document]
    if not query or not document:
        return "a judgement must have a query and a document; one of them is empty"
    if form.iteration is not None and not re.fullmatch(r"[Qq]?\d+", columns[form.iteration]):
        return (
            f"the second of {form.columns} columns must be 0, Q0 or another number; got {columns[form.iteration]!r} "
            "(ids with spaces require tabs)"
        )
    if re.search(r"\s\s", query + "|" + document):
        return f"an id contains several blanks: {query!r}, {document!r}; is the line separated by blanks?"
    if score is None:
        return f"{columns[form.score or 0]!r} is not an integer"
    return ""


def _form_of(line: str) -> tuple[Form | None, bool]:
    """Return the form of a file, given its first line, or `None`; and whether this line is a header."""
    tabs = [column.strip(" ") for column in line.split("\t")]
    columns, separator = (tabs, "\t") if len(tabs) > 2 else (_BLANKS.split(line.strip(" \t")), None)
    names = [column.lower() for column in columns]
    found = [next((names.index(name) for name in known if name in names), None) for known in (QUERY_IDS, DOCUMENT_IDS)]
    query, document = found
    score = next((names.index(name) for name in SCORES if name in names), None)
    if query is not None and document is not None and query != document:
        return Form(separator, len(columns), query, document, score), True
    if len(columns) not in POSITIONS:
        return None, False
    query, document, score = POSITIONS[len(columns)]
    is_header = integer(columns[score]) is None and names[score] in SCORES
    return Form(separator, len(columns), query, document, score, 1 if len(columns) > 3 else None), is_header


def _json_judgements(path: Path, report: IssueHandler) -> Iterator[Judgement]:
    for entry in json_lines(path, report):
        judgement = judgement_of(entry, report)
        if judgement is not None:
            yield judgement


def judgement_of(entry: Entry, report: IssueHandler) -> Judgement | None:
    """Read a judgement from an object or a row; a missing score is 1.

    Args:
        entry: The object or row.
        report: Handler of issues.

    Returns:
        The judgement; `None` if it cannot be read.
    """
    query, document = (_id(entry.value, names) for names in (QUERY_IDS, DOCUMENT_IDS))
    name = next((name for name in SCORES if entry.value.get(name) is not None), None)
    score = 1 if name is None else integer(entry.value[name])
    for names, value in ((QUERY_IDS, query), (DOCUMENT_IDS, document)):
        if value is None:
            shown = ", ".join(map(str, entry.value)) or "nothing"
            report("unreadable", entry.location, query, f"{names[0]!r} must be a text or a number; got {shown}")
            return None
    if score is None:
        shown = repr(entry.value[name])[:80] if name else ""
        report("unreadable", entry.location, query, f"{name!r} must be an integer; got {shown}")
        return None
    return Judgement(entry.location, str(query), str(document), score)


def _id(value: Mapping[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        found = value.get(name)
        if isinstance(found, str | int) and not isinstance(found, bool) and str(found).strip():
            return str(found)
    return None
