"""MRR@k, NDCG@k, Recall@k, hit@k and MAP of a retrieval run, under trec_eval's conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
import evaluate

from ciea_hf.evaluation.metrics import DEFAULT_KS, ranking_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_DESCRIPTION = """
Ranking metrics of retrieval: MRR@k, NDCG@k (graded), Recall@k, hit@k, and MAP, averaged over queries. Ties are broken
as in trec_eval: equal scores (as 32-bit floats) by document id, descending. Unjudged documents are not relevant.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: One dict per query: "documents", the ids of the retrieved documents, and "scores", their scores. Both
        lists are empty for a query without retrieved documents.
    references: One dict per query: "documents", the ids of the judged documents, and "judgements", their judgements,
        above 0 if relevant.
    ks: Cut-offs; 1, 10 and 100 by default.
Returns:
    "mrr@k", "ndcg@k", "recall@k" and "hit@k" for every k, and "map".
Examples:
    >>> metric = evaluate.load(ciea_hf.metrics.path("retrieval"))
    >>> metric.compute(
    ...     predictions=[{"documents": ["a", "b"], "scores": [0.9, 0.8]}],
    ...     references=[{"documents": ["b"], "judgements": [1]}],
    ... )["mrr@10"]
    0.5
"""


class Retrieval(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """Ranking metrics of retrieval as a metric of `evaluate`."""

    def _info(self) -> evaluate.MetricInfo:
        names = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": {"documents": names, "scores": datasets.List(datasets.Value("float32"))},
                    "references": {"documents": names, "judgements": datasets.List(datasets.Value("float64"))},
                }
            ),
            reference_urls=["https://github.com/usnistgov/trec_eval"],
        )

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Any]],
        references: Sequence[Mapping[str, Any]],
        ks: Iterable[int] = DEFAULT_KS,
    ) -> dict[str, float]:
        run = {str(query): _by_document(row, "scores", query) for query, row in enumerate(predictions)}
        qrels = {str(query): _by_document(row, "judgements", query) for query, row in enumerate(references)}
        return ranking_metrics(run, qrels, ks)


def _by_document(row: Mapping[str, Any], values: str, query: int) -> dict[str, Any]:
    documents = row["documents"]
    if len(documents) != len(row[values]) or len(documents) != len(set(documents)):
        raise ValueError(
            f"query {query}: {values!r} must have one entry for each of {len(documents)} different documents"
        )
    return dict(zip(documents, row[values], strict=True))
