"""The index seam, and exact search behind it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PANEL = 64  # columns; a multiple of the block width of every matrix product kernel

Matrix = NDArray[np.floating] | Tensor


class SearchResult(NamedTuple):
    """The best documents of each query, best first.

    Attributes:
        scores: (queries, k) float32.
        positions: (queries, k) int64, positions in the index; `k` is `top_k`, or the number of documents if smaller.
    """

    scores: NDArray[np.float32]
    positions: NDArray[np.int64]


class Index(Protocol):
    """Interface of a search backend. Wrap faiss, Milvus or another store in these two members to use it everywhere."""

    @property
    def ids(self) -> Sequence[str]:
        """Document ids by position."""

    def search(self, queries: Matrix, top_k: int) -> SearchResult:
        """Return the `top_k` documents with the highest inner product for queries of shape (queries, D)."""


class FlatIndex:
    """Exact inner-product search in blocks, with memory bounded by the block sizes.

    Scores are computed in float32 whatever the embeddings' type. Equal scores are ordered by document id, descending,
    also at the cut-off. This is trec_eval's rule, and it makes the result independent of how the corpus is sharded.

    Args:
        embeddings: One matrix (documents, D) or a list of them (shards): arrays, memory maps or tensors.
        ids: Document ids by position over all shards.
        device: Device that computes scores; the CPU by default.
        block_size: Number of documents scored at once.
        query_block_size: Number of queries scored at once.
        missing: Positions of documents without an embedding, which are never found.

    Raises:
        ValueError: If ids and embeddings differ in number, ids repeat, or the shards differ in width.

    Examples:
        >>> index = FlatIndex(torch.eye(3), ids=["a", "b", "c"])
        >>> index.search(torch.tensor([[0.0, 1.0, 0.5]]), top_k=2).positions
        array([[1, 2]])
    """

    def __init__(
        self,
        embeddings: Matrix | Sequence[Matrix],
        ids: Sequence[str],
        device: str | torch.device | None = None,
        block_size: int = 32_768,
        query_block_size: int = 1024,
        missing: Iterable[int] = (),
    ) -> None:
        self.shards = [embeddings] if isinstance(embeddings, (np.ndarray, Tensor)) else list(embeddings)
        self.ids = list(ids)
        self.device = torch.device(device or "cpu")
        self.block_size = block_size
        self.query_block_size = query_block_size
        rows = sum(len(shard) for shard in self.shards)
        if rows != len(self.ids):
            raise ValueError(f"`embeddings` and `ids` must be equally many; got {rows} and {len(self.ids)}")
        if len({shard.shape[1] for shard in self.shards}) > 1:
            raise ValueError(f"shards must have one width; got {sorted({shard.shape[1] for shard in self.shards})}")
        self._tie_rank = id_ranks(self.ids).to(self.device)
        self._missing = torch.tensor(sorted(set(missing)), dtype=torch.long, device=self.device)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Width of the embeddings; 0 for an index without shards."""
        return int(self.shards[0].shape[1]) if self.shards else 0

    @torch.no_grad()
    def search(self, queries: Matrix, top_k: int) -> SearchResult:
        """Find the documents with the highest inner product.

        Args:
            queries: (queries, D) array or tensor.
            top_k: Number of documents per query, at least 1.

        Returns:
            Scores and positions, best first.

        Raises:
            ValueError: If `top_k` is below 1, or the queries' width differs from the index's.
        """
        matrix = _as_float(queries, self.device)
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1; got {top_k}")
        if matrix.ndim != 2 or (self.shards and matrix.shape[1] != self.dimension):
            raise ValueError(
                f"`queries` must have shape (queries, {self.dimension}) for this index; got {tuple(matrix.shape)}"
            )
        kept = min(top_k, len(self) - len(self._missing))
        blocks = torch.split(matrix, self.query_block_size)
        best = []
        for block in blocks:
            no_columns = torch.empty(len(block), 0, dtype=torch.long, device=self.device)
            best.append((matrix.new_empty(len(block), 0), no_columns))
        for start, documents in self._document_blocks():
            ranks = self._tie_rank[start : start + len(documents)]
            missing = self._missing[(self._missing >= start) & (self._missing < start + len(documents))] - start
            for i, block in enumerate(blocks):
                all_scores = inner_products(block, documents).index_fill(1, missing, -torch.inf)
                scores, positions = top_k_with_ties(all_scores, ranks, kept)
                best[i] = self._merge(best[i], (scores, positions + start), kept)
        return SearchResult(
            torch.cat([scores for scores, _ in best]).cpu().numpy(),
            torch.cat([positions for _, positions in best]).cpu().numpy(),
        )

    def _document_blocks(self) -> Iterator[tuple[int, Tensor]]:
        offset = 0
        for shard in self.shards:
            for start in range(0, len(shard), self.block_size):
                yield offset + start, _as_float(shard[start : start + self.block_size], self.device)
            offset += len(shard)

    def _merge(self, best: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], top_k: int) -> tuple[Tensor, Tensor]:
        scores, positions = torch.cat([best[0], new[0]], dim=1), torch.cat([best[1], new[1]], dim=1)
        order = _descending(scores, self._tie_rank[positions])[:, :top_k]
        return scores.gather(1, order), positions.gather(1, order)


def inner_products(queries: Tensor, documents: Tensor) -> Tensor:
    """Score documents so that equal embeddings get equal scores at any position.

    Matrix products compute full panels of columns and the remaining columns by different code, which sums in another
    order. Rows of zeros pad the documents to full panels, so that all columns are summed alike.

    Args:
        queries: (queries, D).
        documents: (documents, D).

    Returns:
        (queries, documents).
    """
    missing = -len(documents) % _PANEL
    filled = torch.nn.functional.pad(documents, (0, 0, 0, missing)) if missing else documents
    return (queries @ filled.T)[:, : len(documents)]


def top_k_with_ties(scores: Tensor, tie_rank: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Take the best columns of each row; equal scores are resolved by tie rank, also at the cut-off.

    `torch.topk` alone keeps arbitrary columns among those that tie at the cut-off. Rows with such a tie are therefore
    selected again: all columns at or above the cut-off are sorted by score and tie rank.

    Args:
        scores: (rows, columns).
        tie_rank: (columns,) distinct integers; among equal scores the higher one wins.
        top_k: Number of columns; all of them if there are fewer.

    Returns:
        Scores and column indices, each (rows, min(top_k, columns)), by score; the order within ties is arbitrary.
    """
    kept = min(top_k, scores.shape[1])
    values, columns = scores.topk(kept, dim=1)
    cutoff = values[:, -1:]
    for row in ((scores >= cutoff).sum(dim=1) > kept).nonzero().flatten().tolist():
        candidates = (scores[row] >= cutoff[row]).nonzero().flatten()
        order = _descending(scores[row, candidates][None], tie_rank[candidates][None])[0, :kept]
        columns[row] = candidates[order]
    return scores.gather(1, columns), columns


def _descending(scores: Tensor, tie_rank: Tensor) -> Tensor:
    """Return indices that sort each row by score, then by tie rank, both descending; both are (rows, columns)."""
    by_rank = tie_rank.argsort(dim=1, descending=True)
    return by_rank.gather(1, scores.gather(1, by_rank).argsort(dim=1, descending=True, stable=True))


def id_ranks(ids: Sequence[str]) -> Tensor:
    """Rank ids in ascending order by code point: (ids,) int64, the tie ranks of [`top_k_with_ties`].

    Raises:
        ValueError: If an id repeats.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    repeated = next((ids[b] for a, b in itertools.pairwise(order) if ids[a] == ids[b]), None)
    if repeated is not None:
        raise ValueError(f"`ids` must be unique; {repeated!r} occurs more than once")
    ranks = torch.empty(len(ids), dtype=torch.long)
    ranks[torch.tensor(order, dtype=torch.long)] = torch.arange(len(ids))
    return ranks


def _as_float(matrix: Matrix, device: torch.device) -> Tensor:
    tensor = matrix if isinstance(matrix, Tensor) else torch.from_numpy(np.array(matrix))
    return tensor.to(device=device, dtype=torch.float32)
