"""What a check finds: faults, and what is sound beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ciea_hf.data.issues import ERROR, ISSUE_TYPES, Issue, Location, relative

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ciea_hf.data.dataset import Qrels
    from ciea_hf.data.readers.base import Query

TRAIN = "train"
KEPT = 10_000  # faults of a kind that are kept in words; all are counted


class IssueCollector:
    """Collects faults, each once.

    Args:
        folder: Places are named by their path in it.
    """

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._seen: set[int] = set()
        self._kept: dict[str, list[Issue]] = {kind: [] for kind in ISSUE_TYPES}

    def __call__(self, kind: str, place: Location, name: str | None, message: str) -> None:
        """Take a fault."""
        key = hash((kind, place, name, message))
        if key in self._seen:
            return
        self._seen.add(key)
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT:
            self._kept[kind].append(Issue(kind, relative(place, self._folder), name, message))

    def of(self, kind: str) -> list[Issue]:
        """List the faults of a kind, the first 10,000 of them."""
        return list(self._kept[kind])

    def __iter__(self) -> Iterator[Issue]:
        """Iterate over the faults, the gravest kinds first."""
        for found in self._kept.values():
            yield from found


@dataclass
class CheckedSplit:
    """What is sound in a split.

    Attributes:
        corpus: The corpus it searches.
        queries: Query id to query.
        qrels: Judgements of documents that are there and can be read.
    """

    corpus: str
    queries: dict[str, Query]
    qrels: Qrels

    @property
    def positives(self) -> dict[str, list[str]]:
        """The positives of each query that has one."""
        found = {query: [name for name, score in row.items() if score > 0] for query, row in self.qrels.items()}
        return {query: names for query, names in found.items() if names}


@dataclass
class CheckResult:
    """What a check has found.

    Attributes:
        faults: All that is wrong.
        counts: How many there are of what.
        splits: What is sound, by split.
        unusable: By corpus, the documents of which nothing can be read.
        leaked: By split, the queries that occur in a later one.
        offsets: Where the lines of images really begin that their index does not hit, by id.
    """

    faults: IssueCollector
    counts: dict[str, int] = field(default_factory=dict)
    splits: dict[str, CheckedSplit] = field(default_factory=dict)
    unusable: dict[str, set[str]] = field(default_factory=dict)
    leaked: dict[str, set[str]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)

    @property
    def blocking_errors(self) -> list[str]:
        """Why training cannot run; empty if it can."""
        kinds = [kind for kind in ISSUE_TYPES if self.faults.counts[kind] and ISSUE_TYPES[kind][0] == ERROR]
        found = [f"{ISSUE_TYPES[kind][1]}: {self.faults.counts[kind]}" for kind in kinds]
        if TRAIN not in self.splits:
            found.append(f"there is no split {TRAIN!r}")
        elif not self.splits[TRAIN].positives:
            found.append(f"no query of {TRAIN!r} has a positive that can be read")
        return found
