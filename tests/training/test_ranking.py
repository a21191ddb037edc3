"""The dev metric of training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.reader import CorpusReader
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.dev_evaluator import DevEvaluator
from tests.support.helpers import tiny_model
from tests.support.toy_training import training_data

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset


def ranking(data: RetrievalDataset, **kwargs: Any) -> dict[str, float]:
    model = tiny_model()
    return DevEvaluator(data, CorpusReader(data), Collator(model.processor), **kwargs)(Embedder(model))


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
    make = functools.partial(DevEvaluator, data, CorpusReader(data), Collator(model.processor))
    judged = {data.corpus_ids.index(name) for judged in data.qrels.values() for name in judged}
    assert len(make(limit=10).rows) == len(judged) == 31
    assert make().rows == list(range(31))
    few = training_data("dev")
    few.qrels.clear()
    few.qrels["q-bare"] = {"img-bare": 1}
    sampled = DevEvaluator(few, CorpusReader(few), Collator(model.processor), limit=10, seed=1)
    assert len(sampled.rows) == 10
    assert 24 in sampled.rows
    other = DevEvaluator(few, CorpusReader(few), Collator(model.processor), limit=10, seed=2)
    assert sampled.rows != other.rows


def test_evaluating_leaves_mode_and_random_state_alone() -> None:
    data, model = training_data("dev"), tiny_model()
    embedder = Embedder(model).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    DevEvaluator(data, CorpusReader(data), Collator(model.processor))(embedder)
    assert torch.equal(torch.get_rng_state(), before)
    assert embedder.training
    assert model.text_model.training
