"""The best columns of score matrices, with equal scores ordered by document id (trec_eval's rule)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


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
