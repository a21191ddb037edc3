"""Ranking metrics under trec_eval's conventions: MRR@k, NDCG@k, Recall@k, hit@k and MAP.

Conventions, each of them trec_eval's (run with `-c`):

* **Ties.** Documents are ranked by score, descending, and equal scores by document id, descending by code point.
  Scores are compared as 32-bit floats, as trec_eval stores them.
* **Queries.** Every query with at least one judgement counts. A query missing from the run scores 0. Queries of the run
  without judgements are ignored.
* **Documents.** Unjudged documents are not relevant. A judgement above 0 is relevant; below 0 it counts as 0.
* **NDCG.** The gain is the judgement itself and the discount `1 / log2(rank + 1)`; the ideal ranking contains all
  relevant documents of the query, retrieved or not.
* **MAP** is computed over the full depth of the run; all other metrics are cut off at `k`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Run = Mapping[str, Mapping[str, float]]
"""Query id to document id to score; higher is better."""

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to document id to graded judgement."""

DEFAULT_KS: tuple[int, ...] = (1, 10, 100)

FloatArray = NDArray[np.float64]


def rank_documents(scores: Mapping[str, float]) -> list[str]:
    """Order the documents of one query: score descending, then document id descending (trec_eval's tie rule).

    Args:
        scores: Document id to score. Scores are compared as 32-bit floats.

    Returns:
        Document ids, best first.

    Raises:
        ValueError: If a score is NaN.
    """
    values = np.fromiter(scores.values(), dtype=np.float32, count=len(scores))
    if np.isnan(values).any():
        document = list(scores)[int(np.isnan(values).argmax())]
        raise ValueError(f"the score of document {document!r} is NaN")
    ranked = sorted(zip(values.tolist(), scores, strict=True), reverse=True)
    return [document for _, document in ranked]


def ranking_metrics(run: Run, qrels: Qrels, ks: Iterable[int] = DEFAULT_KS) -> dict[str, float]:
    """Average every metric over the judged queries.

    Args:
        run: Query id to document id to score.
        qrels: Query id to document id to judgement.
        ks: Cut-offs, each at least 1.

    Returns:
        `{"mrr@k": ..., "ndcg@k": ..., "recall@k": ..., "hit@k": ..., "map": ...}` for every `k`, each in [0, 1].

    Raises:
        ValueError: If a cut-off is below 1, no query has a judgement, or a score is NaN.

    Examples:
        >>> run = {"q1": {"d1": 0.9, "d2": 0.8}, "q2": {"d3": 0.5}}
        >>> ranking_metrics(run, {"q1": {"d2": 1}, "q2": {"d3": 1}}, ks=[10])["mrr@10"]
        0.75
    """
    _, columns = metric_columns(run, qrels, ks)
    return {name: float(values.mean()) for name, values in columns.items()}


def per_query_metrics(run: Run, qrels: Qrels, ks: Iterable[int] = DEFAULT_KS) -> dict[str, dict[str, float]]:
    """Compute every metric for each judged query, for significance tests.

    Args:
        run: Query id to document id to score.
        qrels: Query id to document id to judgement.
        ks: Cut-offs, each at least 1.

    Returns:
        Query id to metric name to value, in the order of the judged queries in `qrels`.

    Raises:
        ValueError: As [`ranking_metrics`].
    """
    queries, columns = metric_columns(run, qrels, ks)
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return {query: dict(zip(columns, row, strict=True)) for query, row in zip(queries, rows, strict=True)}


def metrics_by_kind(
    run: Run, qrels: Qrels, kinds: Mapping[str, str], ks: Iterable[int] = DEFAULT_KS
) -> dict[str, dict[str, float]]:
    """Average every metric over the queries of each kind of positive.

    Args:
        run: Query id to document id to score.
        qrels: Query id to document id to judgement.
        kinds: Query id to kind from `RetrievalDataset.query_kinds`: `"image"`, `"text"` or `"mixed"`. Queries without
            a kind are ignored.
        ks: Cut-offs, each at least 1.

    Returns:
        Metrics of [`ranking_metrics`] by kind, in alphabetical order.

    Raises:
        ValueError: As [`ranking_metrics`].
    """
    queries, columns = metric_columns(run, qrels, ks)
    labels = [kinds.get(query) for query in queries]
    found: dict[str, dict[str, float]] = {}
    for kind in sorted({label for label in labels if label}):
        mask = np.array([label == kind for label in labels])
        found[kind] = {name: float(values[mask].mean()) for name, values in columns.items()}
    return found


def metric_columns(run: Run, qrels: Qrels, ks: Iterable[int] = DEFAULT_KS) -> tuple[list[str], dict[str, FloatArray]]:
    """Compute every metric as one array over the judged queries.

    Args:
        run: Query id to document id to score.
        qrels: Query id to document id to judgement.
        ks: Cut-offs, each at least 1.

    Returns:
        The judged queries, and metric name to values of shape (queries,) in their order.

    Raises:
        ValueError: As [`ranking_metrics`].
    """
    cutoffs = _checked_cutoffs(ks)
    queries = [query for query, judgements in qrels.items() if judgements]
    if not queries:
        raise ValueError("`qrels` has no judgements")
    gains = _ranked_gains(run, qrels, queries)
    ideal, relevant = _ideal_gains(qrels, queries)
    columns: dict[str, FloatArray] = {}
    for name, function in (("mrr", _mrr), ("ndcg", _ndcg), ("recall", _recall), ("hit", _hit)):
        columns |= {f"{name}@{k}": function(gains[:, :k], ideal[:, :k], relevant) for k in cutoffs}
    columns["map"] = _average_precision(gains, relevant)
    return queries, columns


def _checked_cutoffs(ks: Iterable[int]) -> list[int]:
    cutoffs = sorted(set(ks))
    if not cutoffs or cutoffs[0] < 1:
        raise ValueError(f"`ks` must be one or more cut-offs of at least 1; got {cutoffs}")
    return cutoffs


def _ranked_gains(run: Run, qrels: Qrels, queries: Sequence[str]) -> FloatArray:
    """Return judgements in ranked order, (queries, depth of the deepest ranking), padded with 0."""
    rows: list[list[int]] = []
    for query in queries:
        judgements = qrels[query]
        try:
            ranking = rank_documents(run.get(query, {}))
        except ValueError as error:
            raise ValueError(f"query {query!r}: {error}") from None
        rows.append([max(judgements.get(document, 0), 0) for document in ranking])
    return _padded(rows)


def _ideal_gains(qrels: Qrels, queries: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return positive judgements, highest first, (queries, maximum), and their number per query, (queries,)."""
    rows = [sorted((gain for gain in qrels[query].values() if gain > 0), reverse=True) for query in queries]
    return _padded(rows), np.array([len(row) for row in rows], dtype=np.float64)


def _padded(rows: Sequence[Sequence[int]]) -> FloatArray:
    matrix = np.zeros((len(rows), max(1, *map(len, rows))))
    for values, target in zip(rows, matrix, strict=True):
        target[: len(values)] = values
    return matrix


def _share(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; queries without a relevant document get 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _mrr(gains: FloatArray, _ideal: FloatArray, _relevant: FloatArray) -> FloatArray:
    found = gains > 0
    return np.where(found.any(axis=1), 1.0 / (found.argmax(axis=1) + 1.0), 0.0)


def _ndcg(gains: FloatArray, ideal: FloatArray, _relevant: FloatArray) -> FloatArray:
    return _share(_discounted(gains), _discounted(ideal))


def _discounted(gains: FloatArray) -> FloatArray:
    ranks = np.arange(1, gains.shape[1] + 1)
    total: FloatArray = (gains / np.log2(ranks + 1)).sum(axis=1)
    return total


def _recall(gains: FloatArray, _ideal: FloatArray, relevant: FloatArray) -> FloatArray:
    return _share((gains > 0).sum(axis=1).astype(np.float64), relevant)


def _hit(gains: FloatArray, _ideal: FloatArray, _relevant: FloatArray) -> FloatArray:
    return np.where((gains > 0).any(axis=1), 1.0, 0.0)


def _average_precision(gains: FloatArray, relevant: FloatArray) -> FloatArray:
    found = gains > 0
    precision = found.cumsum(axis=1) / np.arange(1, gains.shape[1] + 1)
    return _share(np.where(found, precision, 0.0).sum(axis=1), relevant)
