"""Where a thing stands in its source, what can be wrong with it, and who is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

logger = logging.getLogger(__name__)

ERROR, WARNING, NOTE = "error", "warning", "note"

ISSUE_TYPES = {
    "missing-file": (ERROR, "files that the format needs and that are not there"),
    "unreadable": (ERROR, "lines or rows that cannot be read"),
    "duplicate-document": (ERROR, "document ids that occur again with another content"),
    "duplicate-query": (ERROR, "query ids that occur again with another content"),
    "unknown-document": (ERROR, "positives that are not in the corpus"),
    "offset": (ERROR, "offsets that do not hit their line"),
    "image-not-indexed": (ERROR, "captions whose image is not in the index"),
    "empty-query": (ERROR, "queries without a text"),
    "unreadable-image": (WARNING, "images that cannot be decoded: broken or truncated"),
    "missing-image": (WARNING, "image files that are not there"),
    "large-image": (WARNING, "images of more pixels than are decoded"),
    "empty-caption": (WARNING, "images whose caption is empty"),
    "empty-document": (WARNING, "documents with neither text nor image"),
    "leak": (WARNING, "queries that occur in a later split, too"),
    "reused-query-id": (WARNING, "query ids that a later split has for another query"),
    "shared-positive": (WARNING, "positives that are positives in a later split, too"),
    "no-positive": (WARNING, "queries without a positive"),
    "conflicting-judgement": (WARNING, "documents judged twice for a query, differently"),
    "disagreement": (WARNING, "queries whose positives are others in the file of judgements"),
    "varying-document": (WARNING, "documents that are given several times, not always the same"),
    "unknown-query": (WARNING, "judgements of queries that are not there"),
    "unknown-negative": (WARNING, "negatives that are not in the corpus"),
    "repeated-document": (WARNING, "documents that occur again, unchanged"),
    "repeated-query": (WARNING, "queries that occur again, unchanged"),
    "line-not-indexed": (WARNING, "lines of images that the index does not name"),
    "unused-image": (NOTE, "images that no caption names"),
    "same-image": (NOTE, "images that are the same as an earlier one, byte for byte"),
}
"""Kind of a fault: how grave it is, and what its title in a report is. An error stops training."""


class Location(NamedTuple):
    """A file and, in it, a line or row (from 1), or None for the file as a whole."""

    file: str
    number: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        if self.number is None:
            return self.file
        return f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True)
class Issue:
    """Something wrong.

    Attributes:
        kind: A key of [`ISSUE_TYPES`].
        place: Where it was found.
        id: Of the document, query or image that is concerned, or None.
        message: What is wrong, in words.
    """

    kind: str
    place: Location
    id: str | None
    message: str

    @property
    def level(self) -> str:
        """`"error"`, `"warning"` or `"note"`."""
        return ISSUE_TYPES[self.kind][0]

    def __str__(self) -> str:
        about = "" if self.id is None else f"{self.id!r}: "
        return f"{self.place}: {about}{self.message}"


class IssueHandler(Protocol):
    """Takes faults as they are found; may raise."""

    def __call__(self, kind: str, place: Location, name: str | None, message: str) -> None:
        """Take a fault of a kind at a place, about the thing of that id."""


def raise_on_error(kind: str, place: Location, name: str | None, message: str) -> None:
    """Raise what stops training, and log the rest: how data are loaded.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the fault is another error.
    """
    fault = Issue(kind, place, name, message)
    if kind == "missing-file":
        raise FileNotFoundError(str(fault))
    if fault.level == ERROR:
        raise ValueError(f"{fault} (`ciea data check --fix` writes a copy without such faults)")
    logger.debug("%s", fault)


def ignore(kind: str, place: Location, name: str | None, message: str) -> None:
    """Take a fault, and do nothing about it."""


def relative(place: Location, folder: Path) -> Location:
    """Name a place by its path in a folder, where it is in there."""
    path, base = Path(place.file).resolve(), folder.resolve()
    base = base.parent if base.is_file() else base
    return place._replace(file=str(path.relative_to(base))) if path.is_relative_to(base) else place
