from __future__ import annotations

import math
from typing import Any, cast

import evaluate
import pytest

from ciea_hf import metrics
from ciea_hf.evaluation.metrics import ranking_metrics
from tests.evaluation.test_metrics import random_case


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def refuse(*args: Any) -> None:
        raise AssertionError(f"the network was asked for: {args[1:]}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        return evaluate.load(metrics.path("retrieval"), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_module_equals_our_metrics_on_random_runs(metric: Any, seed: int) -> None:
    run, qrels = random_case(seed)
    predictions, references = metrics.as_examples(run, qrels)
    found = metric.compute(predictions=predictions, references=references, ks=[1, 3, 10])
    assert found == pytest.approx(ranking_metrics(run, qrels, ks=[1, 3, 10]), abs=1e-12)
    assert 0 < found["mrr@3"] < 1


def test_batches_add_up(metric: Any) -> None:
    run, qrels = random_case(2)
    for prediction, reference in zip(*metrics.as_examples(run, qrels), strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == pytest.approx(ranking_metrics(run, qrels))


def test_repeated_documents_are_refused(metric: Any) -> None:
    with pytest.raises(ValueError, match="query 0: 'scores'"):
        metric.compute(
            predictions=[{"documents": ["a", "a"], "scores": [1.0, 2.0]}],
            references=[{"documents": ["a"], "judgements": [1]}],
        )


def test_unknown_metrics_are_named() -> None:
    with pytest.raises(ValueError, match="one of retrieval; got 'bleu'"):
        metrics.path("bleu")


def test_judgements_may_be_fractions(metric: Any) -> None:
    run, qrels = {"q": {"a": 0.9, "b": 0.8}}, cast("Any", {"q": {"b": 0.5}})
    predictions, references = metrics.as_examples(run, qrels)
    found = metric.compute(predictions=predictions, references=references, ks=[10])
    assert found == pytest.approx(ranking_metrics(run, qrels, [10]))
    assert found["ndcg@10"] == pytest.approx(1 / math.log2(3))
