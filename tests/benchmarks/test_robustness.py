"""Tests of the robustness benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import robustness
from ciea_hf.evaluation import evaluate
from tests.support.helpers import tiny_model
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    import pytest

    from ciea_hf.evaluation import EvaluationResult


def test_robustness_evaluates_equal_captions_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any, **options: Any) -> EvaluationResult:
        calls.append(options)
        return evaluate(*arguments, **options)

    monkeypatch.setattr("ciea_hf.evaluation.evaluate", counted)
    models = [tiny_model(seed=seed) for seed in (0, 1)]
    points = robustness.measure(models, toy_dataset(), [0.0, 1.0], seed=0)
    assert [(point.corruption, point.share) for point in points] == [
        ("drop", 0.0), ("drop", 1.0), ("swap", 0.0), ("swap", 1.0),
    ]  # fmt: skip
    assert len(calls) == 2 * 3, "a share of 0 is the same for both corruptions"
    assert points[0].comparison == points[2].comparison != points[1].comparison
    for point in points:
        low, high = point.intervals[0]
        assert low <= point.comparison.a <= high
    page = robustness.page(points, ["a", "b"])
    assert page.count("captions swapped") == 2
