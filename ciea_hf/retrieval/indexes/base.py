"""Indexes over an [`EncodedCorpus`]: candidates of any method, whose scores are then computed from what is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ciea_hf.retrieval.folder import load_corpus
from ciea_hf.retrieval.results import SearchResult, as_matrix, best_of, check_top_k, exact_scores

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from ciea_hf.retrieval.corpus import EncodedCorpus
    from ciea_hf.retrieval.filters import Filter
    from ciea_hf.retrieval.records import DocumentRecord
    from ciea_hf.retrieval.results import Matrix

_ROWS_AT_ONCE = 4096
_UNIT = 2.0**-24  # relative rounding error of float32


class CorpusIndex(ABC):
    """Base class of the indexes over an [`EncodedCorpus`].

    Args:
        corpus: Embeddings and records.
        device: Device that computes the scores of several queries; the CPU by default.
    """

    few: ClassVar[int] = 2048
    """Number of documents that a filter may leave for them all to be scored in full precision."""

    def __init__(self, corpus: EncodedCorpus, device: str | torch.device | None = None) -> None:
        self.corpus = corpus
        self.device = str(device or "cpu")

    @property
    def ids(self) -> list[str]:
        """Ids of all documents that can be found."""
        return self.corpus.names(np.flatnonzero(self.corpus.live))

    @property
    def dimension(self) -> int:
        """Width of the embeddings; 0 for an empty index."""
        return self.corpus.dimension

    def __len__(self) -> int:
        return int(self.corpus.live.sum())

    def search(self, queries: Matrix, top_k: int, filter: Filter | None = None) -> SearchResult:  # noqa: A002
        """Find the documents with the highest inner product.

        Args:
            queries: (queries, D) array or tensor.
            top_k: Number of documents per query, at least 1.
            filter: Conditions on the documents; see `ciea_hf.retrieval.filters`.

        Returns:
            Ids and scores, best first; equal scores are ordered by id, descending, also at the cut-off.

        Raises:
            ValueError: If `top_k` is below 1, the queries' width differs from the index's, or the filter is invalid.
        """
        check_top_k(top_k)
        matrix = as_matrix(queries, self.dimension)
        allowed = self.corpus.allowed(filter)
        count = len(self.corpus.live) if allowed is None else int(allowed.sum())
        kept = min(top_k, count)
        if not kept:
            return SearchResult([[] for _ in matrix], [[] for _ in matrix], lambda: [[] for _ in matrix])
        if count <= max(self.few, kept):
            candidates = self._all(matrix, allowed)
        else:
            candidates = self._candidates(matrix, kept, allowed)
        found = [self._best(query, rows, kept) for query, rows in zip(matrix, candidates, strict=True)]
        places = [row[0] for row in found]
        return SearchResult(
            [row[1] for row in found],
            [row[2] for row in found],
            lambda: [[self.corpus.record(position) for position in row] for row in places],
        )

    @abstractmethod
    def _candidates(
        self, queries: NDArray[np.float32], kept: int, allowed: NDArray[np.bool_] | None
    ) -> Iterator[NDArray[np.int64]]:
        """Yield, for each query, positions among which its best `kept` documents are expected."""

    def add(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents; see [`EncodedCorpus.add`]."""
        self.corpus.add(embeddings, records)

    def upsert(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add or replace documents; see [`EncodedCorpus.upsert`]."""
        self.corpus.upsert(embeddings, records)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents; see [`EncodedCorpus.delete`]."""
        self.corpus.delete(ids)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write an index folder; see [`EncodedCorpus.save`]."""
        self.corpus.save(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> CorpusIndex:
        """Open an index folder."""
        return cls(load_corpus(folder))

    def _all(self, queries: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> Iterator[NDArray[np.int64]]:
        rows = np.arange(len(self.corpus.live)) if allowed is None else np.flatnonzero(allowed)
        for _ in queries:
            yield rows

    def _best(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], kept: int
    ) -> tuple[list[int], list[str], list[float]]:
        """Score candidates from what is stored, and take the best."""
        scores = np.concatenate(
            [
                exact_scores(query, self.corpus.embeddings(rows[start : start + _ROWS_AT_ONCE]))
                for start in range(0, len(rows), _ROWS_AT_ONCE)
            ]
        )
        if len(rows) > kept:  # ids are read for those alone that may be among the best
            cutoff = np.partition(scores, len(scores) - kept)[len(scores) - kept]
            chosen = np.flatnonzero(scores >= cutoff)
            rows, scores = rows[chosen], scores[chosen]
        order, ids, values = best_of(scores, self.corpus.names(rows), kept)
        return rows[order].tolist(), ids, values


def near_best(
    scores: NDArray[np.float32], kept: int, query: NDArray[np.float32], largest: float = 1.0
) -> NDArray[np.integer[Any]]:
    """Return the places of the best scores, and of all that rounding may have moved below the cut-off.

    Args:
        scores: (documents,), computed in float32; -inf for documents that must not be found.
        kept: Number of best documents.
        query: (D,).
        largest: Length of the longest embedding.
    """
    import torch

    cutoff = float(torch.from_numpy(scores).topk(kept).values[-1])
    return np.flatnonzero(scores >= cutoff - rounding_margin(query, largest))


def rounding_margin(query: NDArray[np.float32], largest: float = 1.0) -> float:
    """Return twice a bound on the error of an inner product in float32, for errors that partly cancel."""
    return float(8 * np.sqrt(len(query)) * _UNIT * max(float(np.linalg.norm(query)), 1e-30) * max(largest, 1.0))
