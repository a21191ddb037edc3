"""The dev metric of training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf.evaluation import evaluate
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.dev_evaluator import DevEvaluator
from tests.support.helpers import tiny_model
from tests.support.toy_training import training_data

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset


def ranking(data: RetrievalDataset, **kwargs: Any) -> dict[str, float]:
    model = tiny_model()
    return DevEvaluator(data, model, Collator(model.processor), **kwargs)(Embedder(model))


def test_blocks_and_workers_change_no_metric() -> None:
    data = training_data("dev")
    expected = ranking(data)
    assert ranking(data, batch_size=4) == pytest.approx(expected)
    assert ranking(data, batch_size=7, workers=1) == pytest.approx(expected)
    assert expected["mrr@10/mixed"] >= 0
    assert expected["recall@1"] <= expected["recall@10"] <= 1


def test_a_sample_of_the_documents_holds_the_relevant_ones() -> None:
    data = training_data("dev")
    model = tiny_model()
    make = functools.partial(DevEvaluator, data, model, Collator(model.processor))
    judged = {data.corpus_ids.index(name) for judged in data.qrels.values() for name in judged}
    assert len(make(limit=10).rows) == len(judged) == 31
    assert make().rows == list(range(31))
    few = training_data("dev")
    few.qrels.clear()
    few.qrels["q-bare"] = {"img-bare": 1}
    sampled = DevEvaluator(few, model, Collator(model.processor), limit=10, seed=1)
    assert len(sampled.rows) == 10
    assert 24 in sampled.rows
    other = DevEvaluator(few, model, Collator(model.processor), limit=10, seed=2)
    assert sampled.rows != other.rows


@pytest.mark.parametrize("content", ["full", "image"])  # equal captions would tie but for rounding
@pytest.mark.parametrize("on_broken_image", ["skip", "caption"])
def test_the_dev_metric_is_the_metric_of_evaluate(content: str, on_broken_image: str) -> None:
    data, model = training_data("dev", broken=3), tiny_model()

    def view(part: RetrievalDataset) -> DocumentView:
        return DocumentView(part, content, on_broken_image=on_broken_image)

    found = DevEvaluator(data, model, Collator(model.processor), view, batch_size=5)(Embedder(model))
    expected = evaluate(model, data, content=view(data))
    assert 0 < found["mrr@10"] < 1
    for name in ("mrr@10", "ndcg@10", "recall@1", "recall@10"):
        assert found[name] == pytest.approx(expected.metrics[name], abs=1e-6)
    for kind, metrics in expected.by_kind.items():
        assert found[f"mrr@10/{kind}"] == pytest.approx(metrics["mrr@10"], abs=1e-6)


def test_evaluating_leaves_mode_and_random_state_alone() -> None:
    data, model = training_data("dev"), tiny_model()
    embedder = Embedder(model).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    DevEvaluator(data, model, Collator(model.processor))(embedder)
    assert torch.equal(torch.get_rng_state(), before)
    assert embedder.training
    assert model.text_model.training
