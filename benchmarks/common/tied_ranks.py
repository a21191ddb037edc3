"""MRR with ties counted at their mean: documents of equal score are in random order, and the mean over orders is taken.

trec_eval orders equal scores by document id, which is arbitrary when many documents have the same caption.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def expected_mrr(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    queries: Iterable[str],
    depth: int = 10,
) -> float:
    """Return the expectation of MRR over random orders of documents with equal scores.

    Args:
        run: Query id to document id to score.
        qrels: Query id to document id to grade; documents with a positive grade are relevant.
        queries: Ids of the queries to average over.
        depth: Number of ranks that count.

    Returns:
        The mean over the queries.
    """
    values = []
    for query in queries:
        relevant = {document for document, grade in qrels[query].items() if grade > 0}
        scores = run.get(query, {})
        found = relevant & scores.keys()
        if not found:
            values.append(0.0)
            continue
        best = max(scores[document] for document in found)
        above = sum(score > best for score in scores.values())
        tied = sum(score == best for score in scores.values())
        hits = sum(scores[document] == best for document in found)
        values.append(_expected_reciprocal_rank(above, tied, hits, depth))
    return float(np.mean(values))


def _expected_reciprocal_rank(above: int, tied: int, hits: int, depth: int) -> float:
    """Return the expected reciprocal rank of the first of `hits` relevant among `tied` documents, below `above`."""
    total = 0.0
    for position in range(1, min(tied - hits + 1, depth - above) + 1):
        # the first relevant document is at this position if all other relevant documents follow
        total += comb(tied - position, hits - 1) / comb(tied, hits) / (above + position)
    return total
