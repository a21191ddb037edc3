"""Exact search in blocks of memory-mapped embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ciea_hf.retrieval.indexes.base import CorpusIndex, near_best, rounding_margin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ciea_hf.retrieval.corpus import EncodedCorpus

_SLACK = 32  # further candidates per query, for scores that rounding has moved
_FEW_QUERIES = 4  # are scored one by one, which reads the embeddings once each and needs no matrix of scores
_SPARSE = 8  # a filter that leaves less than this part of the documents is applied before they are read


class FlatIndex(CorpusIndex):
    """Exact inner-product search, with memory bounded by the block sizes.

    The best documents are found with products in float32 and their scores computed again in double precision, so that
    neither scores nor ranks depend on how the corpus is sharded or how many queries are searched at once.

    Args:
        corpus: Embeddings and records.
        device: Device that computes the scores of several queries; the CPU by default.
        block_size: Number of documents scored at once.
        query_block_size: Number of queries scored at once.

    Examples:
        >>> from ciea_hf.retrieval import EncodedCorpus
        >>> index = FlatIndex(EncodedCorpus.from_embeddings(np.eye(3), ids=["a", "b", "c"]))
        >>> index.search(np.array([[0.0, 1.0, 0.5]]), top_k=2).ids
        [['b', 'c']]
    """

    def __init__(
        self,
        corpus: EncodedCorpus,
        device: str | torch.device | None = None,
        block_size: int = 32_768,
        query_block_size: int = 1024,
    ) -> None:
        super().__init__(corpus, device)
        self.block_size = block_size
        self.query_block_size = query_block_size

    def _candidates(
        self, queries: NDArray[np.float32], kept: int, allowed: NDArray[np.bool_] | None
    ) -> Iterator[NDArray[np.int64]]:
        if len(queries) <= _FEW_QUERIES and self.device == "cpu":
            for query in queries:
                yield self._scan(query, kept, allowed)
            return
        for start in range(0, len(queries), self.query_block_size):
            yield from self._scan_together(queries[start : start + self.query_block_size], kept, allowed)

    def _scan(self, query: NDArray[np.float32], kept: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Score all allowed documents for one query."""
        largest = self._longest(1)
        if allowed is not None and allowed.sum() * _SPARSE < len(allowed):
            positions = np.flatnonzero(allowed)
            parts = [positions[i : i + 4096] for i in range(0, len(positions), 4096)]
            scores = np.concatenate([self.corpus.embeddings(part) @ query for part in parts])
            chosen: NDArray[np.int64] = positions[near_best(scores, kept, query, largest)]
            return chosen
        scores = np.empty(len(self.corpus.live), dtype=np.float32)
        for start, rows in self.corpus.blocks(self.block_size):
            np.dot(rows, query, out=scores[start : start + len(rows)])
        if allowed is not None:
            scores[~allowed] = -np.inf
        return near_best(scores, kept, query, largest).astype(np.int64)

    @torch.no_grad()
    def _scan_together(
        self, queries: NDArray[np.float32], kept: int, allowed: NDArray[np.bool_] | None
    ) -> Iterator[NDArray[np.int64]]:
        """Score all allowed documents for several queries, keeping the best of each block."""
        depth = kept + _SLACK
        matrix = torch.from_numpy(queries).to(self.device)
        scores = matrix.new_empty(len(matrix), 0)
        positions = torch.empty(len(matrix), 0, dtype=torch.long, device=self.device)
        for start, rows in self.corpus.blocks(self.block_size):
            block = matrix @ torch.from_numpy(rows).to(self.device).T
            if allowed is not None:
                hidden = torch.from_numpy(~allowed[start : start + len(rows)]).to(self.device)
                block.masked_fill_(hidden, -torch.inf)
            best = block.topk(min(depth, len(rows)), dim=1)
            scores = torch.cat([scores, best.values], dim=1)
            positions = torch.cat([positions, best.indices + start], dim=1)
            if scores.shape[1] > depth:
                scores, order = scores.topk(depth, dim=1)
                positions = positions.gather(1, order)
        ordered, order = scores.sort(dim=1, descending=True)
        values, places = ordered.cpu().numpy(), positions.gather(1, order).cpu().numpy()
        largest = self._longest(1)
        for query, row, found in zip(queries, values, places, strict=True):
            cutoff = row[kept - 1] - rounding_margin(query, largest)
            if len(row) == depth and row[-1] >= cutoff:  # more documents tie than were kept
                yield self._scan(query, kept, allowed)
            else:
                yield found[row >= cutoff]

    def _longest(self, default: float) -> float:
        """Return the length of the longest embedding, as far as rounding errors depend on it."""
        if self.corpus.settings.get("normalized", False):
            return default
        if getattr(self, "_longest_of", None) != self.corpus.version:
            lengths = [
                np.linalg.norm(rows, axis=1).max() for _, rows in self.corpus.blocks(self.block_size) if len(rows)
            ]
            self._longest_of, self._length = self.corpus.version, float(max(lengths, default=default))
        return self._length
