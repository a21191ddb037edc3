"""Queries that are replaced by a part of the image: their choice, their embeddings, and a training with them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.data.examples import Example, RetrievalExamples
from ciea_hf.training.data.query_images import MIN_SHARE, random_part, random_words
from ciea_hf.training.data.sampler import SampleKey
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import tiny_model, toy_image
from tests.support.toy_training import configured, read_log, reset_engine, training_data

if TYPE_CHECKING:
    from pathlib import Path


def sampled(examples: RetrievalExamples, epochs: int) -> list[Example]:
    return [examples[SampleKey(0, epoch, i)] for epoch in range(epochs) for i in range(len(examples))]


def test_a_part_lies_within_the_image() -> None:
    image = toy_image(1, (60, 30))
    rng = random.Random(0)
    shares = []
    for _ in range(200):
        part = random_part(image, rng)
        shares.append(part.width * part.height / 1800)
        assert 0.7 < part.width / part.height / 2 < 1.4
    assert MIN_SHARE * 0.9 < min(shares) < 0.35
    assert 0.85 < max(shares) <= 1
    assert random_part(toy_image(1, (1, 1)), rng).size == (1, 1)


def test_words_keep_their_order() -> None:
    rng = random.Random(0)
    found = {random_words("one two three", rng) for _ in range(100)}
    assert found == {"one", "two", "three", "one two", "one three", "two three", "one two three"}


def test_only_queries_of_images_are_replaced_and_half_keep_words() -> None:
    data = training_data()
    view = DocumentView(data)
    plain = sampled(RetrievalExamples(data, view), 100)
    found = sampled(RetrievalExamples(data, view, image_queries=0.5), 100)
    assert [example.targets for example in found] == [example.targets for example in plain]
    eligible = [i for i, example in enumerate(plain) if example.captions is not None]
    replaced = [i for i, example in enumerate(found) if example.query_image is not None]
    assert set(replaced) <= set(eligible)
    assert len(replaced) / len(eligible) == pytest.approx(0.5, abs=0.08)
    assert all(found[i].captions is None for i in replaced)  # no complementary query
    words = [found[i].query for i in replaced if found[i].query]
    assert len(words) / len(replaced) == pytest.approx(0.5, abs=0.06)
    for i in replaced:
        assert set(found[i].query.split()) <= set(plain[i].query.split())
    kept = set(range(len(plain))) - set(replaced)
    assert all(found[i].query == plain[i].query and found[i].captions == plain[i].captions for i in kept)


def test_an_image_that_cannot_be_decoded_keeps_its_query() -> None:
    """The document itself can be read from cached features."""
    data = training_data(broken=24)
    features = {name: torch.zeros(4, 24) for name in data.corpus_ids}
    view = DocumentView(data, features=features)
    found = sampled(RetrievalExamples(data, view, image_queries=0.9), 3)
    broken = {row for row, name in enumerate(view.ids) if name.startswith("img-") and name != "img-bare"}
    assert all(example.query for example in found if example.targets[0] in broken)
    assert any(example.query_image is not None for example in found)  # img-bare


@pytest.mark.parametrize("gradient_cache", [False, True])
def test_embeddings_are_those_of_encode(gradient_cache: bool) -> None:
    data = training_data()
    model = tiny_model(extractor_weights="gate", extract_uncaptioned=True)
    model.config.prompts = {"query": "search: ", "document": ""}
    view = DocumentView(data, preprocess=model.processor.preprocess_image)
    examples = sampled(RetrievalExamples(data, view, image_queries=0.6), 1)
    images = [example for example in examples if example.query_image is not None]
    assert {bool(example.query) for example in images} == {True, False}
    builder = ComplementaryQueryBuilder(model.processor.tokenizer, prompt="search: ")
    batch = Collator(model.processor, prompts=model.config.prompts, query_builder=builder, chunk_size=3)(examples)
    embedder = Embedder(model, "extracted", gradient_cache).train()
    embeddings, image_only, _ = embedder(batch.groups)
    assert len(embeddings) == sum(batch.counts[:3])
    assert len(image_only) == len(batch.images)  # documents alone
    embeddings = embedder.eval()(batch.groups)[0]
    inputs: list[Any] = []
    for example in examples:
        if example.query_image is None:
            inputs.append(example.query)
        else:
            inputs.append({"text": example.query or None, "image": example.query_image})
    expected = model.encode_query(inputs, convert_to_tensor=True)
    torch.testing.assert_close(embeddings[: len(examples)].detach(), expected, atol=1e-5, rtol=1e-5)


def test_training_with_image_queries_is_reproducible(
    toy: Path, tmp_path: Path, fresh_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = []
    for name, share in (("one", 0.5), ("two", 0.5), ("none", 0.0)):
        reset_engine()
        run_stages(configured(toy, tmp_path / name, image_queries=share, cache_vision_features=str(tmp_path / "cache")))
        logs.append(read_log(tmp_path / name / "in_batch"))
    assert logs[0] == logs[1] != logs[2]
