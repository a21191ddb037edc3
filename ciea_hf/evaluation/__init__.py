"""Ranking metrics and the evaluator."""

from __future__ import annotations

from ciea_hf.evaluation.metrics import (
    metrics_by_kind,
    per_query_metrics,
    rank_documents,
    ranking_metrics,
)

__all__ = ["metrics_by_kind", "per_query_metrics", "rank_documents", "ranking_metrics"]
