"""Issues of data sets: their types, their locations, and how they are handled."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

logger = logging.getLogger(__name__)

ERROR, WARNING, NOTE = "error", "warning", "note"

ISSUE_TYPES = {
    "missing-file": (ERROR, "missing files that the format requires"),
    "unreadable": (ERROR, "lines or rows that cannot be read"),
    "duplicate-document": (ERROR, "document ids that repeat with different content"),
    "duplicate-query": (ERROR, "query ids that repeat with different content"),
    "unknown-document": (ERROR, "positives that are not in the corpus"),
    "offset": (ERROR, "offsets that do not point at their line"),
    "image-not-indexed": (ERROR, "captions whose image is missing from the index"),
    "empty-query": (ERROR, "queries without a text"),
    "unreadable-image": (WARNING, "images that cannot be decoded: corrupt or truncated"),
    "missing-image": (WARNING, "missing image files"),
    "large-image": (WARNING, "images that exceed the pixel limit"),
    "empty-caption": (WARNING, "images whose caption is empty"),
    "empty-document": (WARNING, "documents with neither text nor image"),
    "leak": (WARNING, "queries that also occur in a later split"),
    "reused-query-id": (WARNING, "query ids that a later split uses for another query"),
    "shared-positive": (WARNING, "positives that are also positives in a later split"),
    "no-positive": (WARNING, "queries without a positive"),
    "conflicting-judgement": (WARNING, "documents with two different judgements for a query"),
    "disagreement": (WARNING, "queries whose positives differ from the file of judgements"),
    "contradiction": (WARNING, "rows whose modality differs from what they hold"),
    "varying-document": (WARNING, "documents that repeat with varying content"),
    "unknown-query": (WARNING, "judgements of missing queries"),
    "unknown-negative": (WARNING, "negatives that are not in the corpus"),
    "repeated-document": (WARNING, "documents that repeat unchanged"),
    "repeated-query": (WARNING, "queries that repeat unchanged"),
    "line-not-indexed": (WARNING, "image lines missing from the index"),
    "unused-image": (NOTE, "images without a caption that refers to them"),
    "same-text": (NOTE, "texts that are equal to an earlier one"),
    "same-image": (NOTE, "images that are byte-identical to an earlier one"),
}
"""Severity and title of each type of issue. An error prevents training."""


class Location(NamedTuple):
    """A file, and a line or row in it (from 1), or `None` for the whole file."""

    file: str
    number: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        if self.number is None:
            return self.file
        return f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True)
class Issue:
    """An issue of a data set.

    Attributes:
        kind: Type of the issue, a key of [`ISSUE_TYPES`].
        location: File and line or row.
        id: Id of the document, query or image, or `None`.
        message: Description of the issue.
    """

    kind: str
    location: Location
    id: str | None
    message: str

    @property
    def level(self) -> str:
        """Severity: `"error"`, `"warning"` or `"note"`."""
        return ISSUE_TYPES[self.kind][0]

    def __str__(self) -> str:
        about = "" if self.id is None else f"{_cut(self.id, 100)!r}: "
        return f"{self.location}: {about}{_cut(self.message, 500)}"


def _cut(text: str, length: int) -> str:
    """Shorten a text that may contain a user's values of any length."""
    return text if len(text) <= length else text[:length] + "..."


class IssueHandler(Protocol):
    """Handles issues as they are found; may raise an error."""

    def __call__(self, kind: str, location: Location, name: str | None, message: str) -> None:
        """Handle an issue of a type at a location, about the document, query or image with that id."""


def raise_on_error(kind: str, location: Location, name: str | None, message: str) -> None:
    """Raise errors and log all other issues, as loading does.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the issue is any other error.
    """
    issue = Issue(kind, location, name, message)
    if kind == "missing-file":
        raise FileNotFoundError(str(issue))
    if issue.level == ERROR:
        raise ValueError(f"{issue} (`ciea data check --fix` writes a copy without such issues)")
    logger.debug("%s", issue)


def raise_issue(kind: str, location: Location, name: str | None, message: str) -> None:  # noqa: ARG001
    """Raise every error of a file that is not part of a data set; warnings are ignored.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the issue is any other error.
    """
    if kind == "missing-file":
        raise FileNotFoundError(f"{location}: {message}")
    if ISSUE_TYPES[kind][0] == ERROR:
        raise ValueError(f"{location}: {message}")


def ignore(kind: str, location: Location, name: str | None, message: str) -> None:
    """Ignore an issue."""


def relative(location: Location, folder: Path) -> Location:
    """Return a location with its path relative to a folder, if it is inside."""
    path, base = Path(location.file).resolve(), folder.resolve()
    base = base.parent if base.is_file() else base
    return location._replace(file=str(path.relative_to(base))) if path.is_relative_to(base) else location
