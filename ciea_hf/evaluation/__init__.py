"""Ranking metrics and the evaluator."""

from __future__ import annotations

from ciea_hf.evaluation.evaluator import EvaluationResult, evaluate, score_run
from ciea_hf.evaluation.metrics import (
    metrics_by_kind,
    per_query_metrics,
    rank_documents,
    ranking_metrics,
)

__all__ = [
    "EvaluationResult",
    "evaluate",
    "metrics_by_kind",
    "per_query_metrics",
    "rank_documents",
    "ranking_metrics",
    "score_run",
]
