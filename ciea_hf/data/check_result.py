"""Result of a check: issues, and the valid part of the data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ciea_hf.data.issues import ERROR, ISSUE_TYPES, Issue, Location, relative

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ciea_hf.data.dataset import Qrels
    from ciea_hf.data.readers.fields import Query

TRAIN = "train"
KEPT = 10_000  # issues kept per type; all are counted


class IssueCollector:
    """Collects issues, each once.

    Args:
        folder: Folder to which locations are relative.
    """

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._seen: set[int] = set()
        self._kept: dict[str, list[Issue]] = {kind: [] for kind in ISSUE_TYPES}

    def __call__(self, kind: str, location: Location, name: str | None, message: str) -> None:
        """Record an issue."""
        key = hash((kind, location, name, message))
        if key in self._seen:
            return
        self._seen.add(key)
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT:
            self._kept[kind].append(Issue(kind, relative(location, self._folder), name, message))

    def of(self, kind: str) -> list[Issue]:
        """Return the first 10,000 issues of a type."""
        return list(self._kept[kind])

    def __iter__(self) -> Iterator[Issue]:
        """Iterate over the issues, most severe types first."""
        for found in self._kept.values():
            yield from found


@dataclass
class CheckedSplit:
    """Valid part of a split.

    Attributes:
        corpus: Name of its corpus.
        queries: Queries by id.
        qrels: Judgements of documents that exist and can be read.
    """

    corpus: str
    queries: dict[str, Query]
    qrels: Qrels

    @property
    def positives(self) -> dict[str, list[str]]:
        """Return the positives of each query that has any."""
        found = {query: [name for name, score in row.items() if score > 0] for query, row in self.qrels.items()}
        return {query: names for query, names in found.items() if names}


@dataclass
class CheckResult:
    """Result of a check.

    Attributes:
        issues: All issues.
        counts: Counts by name.
        splits: Valid part of each split.
        unusable: Documents that cannot be read, by corpus.
        leaked: Queries that also occur in a later split, by split.
        offsets: Actual offset of each image line that the index misses, by id.
    """

    issues: IssueCollector
    counts: dict[str, int] = field(default_factory=dict)
    splits: dict[str, CheckedSplit] = field(default_factory=dict)
    unusable: dict[str, set[str]] = field(default_factory=dict)
    leaked: dict[str, set[str]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)

    @property
    def blocking_errors(self) -> list[str]:
        """Reasons why training cannot run; empty if it can."""
        kinds = [kind for kind in ISSUE_TYPES if self.issues.counts[kind] and ISSUE_TYPES[kind][0] == ERROR]
        found = [f"{ISSUE_TYPES[kind][1]}: {self.issues.counts[kind]}" for kind in kinds]
        if TRAIN not in self.splits:
            found.append(f"split {TRAIN!r} not found")
        elif not self.splits[TRAIN].positives:
            found.append(f"no query of {TRAIN!r} has a readable positive")
        return found

    @property
    def conditions(self) -> list[str]:
        """Conditions under which training can run although there are issues."""
        broken = sum(self.issues.counts[kind] for kind in ("unreadable-image", "missing-image", "large-image"))
        noun = "image" if broken == 1 else "images"
        return [f"with `--on-broken-image skip` or `caption`: {broken} {noun} cannot be read"] if broken else []
