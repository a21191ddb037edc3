from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ciea_hf.data import RetrievalDataset, corpus_from_columns
from ciea_hf.retrieval import (
    DocumentView,
    EncodingOptions,
    Retriever,
    encode_corpus,
    encode_queries,
    load_corpus,
    model_fingerprint,
)
from tests.support.helpers import tiny_model
from tests.support.toy_retrieval import ToyEncoder, coloured_image, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


def kinds(view: DocumentView) -> list[str]:
    return [type(item).__name__.replace("ImageFile", "") for item in view.batch(0, len(view))]


def test_views_keep_the_chosen_part() -> None:
    dataset = toy_dataset()
    image = kinds(DocumentView(dataset, "image"))[0]
    assert kinds(DocumentView(dataset)) == ["dict"] * 3 + [image] + ["str"] * 2
    assert kinds(DocumentView(dataset, "image")) == [image] * 4 + ["str"] * 2
    assert DocumentView(dataset, "caption").batch(2, 5) == ["a boat", None, "tea is a drink"]
    swapped = DocumentView(dataset, "caption", captions=["", "x", None, None, "t", "u"])
    assert swapped.batch(0, 3) == [None, "x", None]
    names = [DocumentView(dataset, part).fingerprint for part in ("full", "caption", "image")]
    assert len({*names, swapped.fingerprint}) == 4
    with pytest.raises(ValueError, match="full, caption, image"):
        DocumentView(dataset, "pixels")
    with pytest.raises(ValueError, match="`captions` must have 6 entries"):
        DocumentView(dataset, captions=["x"])


def test_search_finds_by_image_and_by_text() -> None:
    retriever = Retriever.from_dataset(ToyEncoder(), toy_dataset())
    found = retriever.search(["a red cup", "tea drink"], top_k=6)
    assert [hits[0].id for hits in found] == ["img-red", "txt-tea"]
    assert (found[0][0].kind, found[0][0].text, found[1][0].kind) == ("image", "a cup", "text")
    assert [hit.rank for hit in found[0]] == [1, 2, 3, 4, 5, 6]
    assert found[0][0].score == pytest.approx(1.0)
    assert [hit.id for hit in retriever.search("a red cup", top_k=1)[0]] == ["img-red"]
    assert retriever.search([]) == []


def test_documents_without_content_become_zeros() -> None:
    view = DocumentView(toy_dataset(), captions=[None] * 6)
    rows = encode_corpus(ToyEncoder(), toy_dataset(), view=view, options=EncodingOptions(batch_size=1)).matrix()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 1, 0, 0], atol=1e-6)


def test_errors_name_the_document() -> None:
    class Broken(ToyEncoder):
        def _embed(self, item: Any) -> Any:
            return super()._embed(item) * (np.nan if item == "tea is a drink" else 1)

    class TextOnly(ToyEncoder):
        def supports(self, modality: str) -> bool:
            return modality == "text"

    with pytest.raises(ValueError, match="'txt-tea' is not finite"):
        encode_corpus(Broken(), toy_dataset())
    with pytest.raises(ValueError, match=r"does not support image.* `content` to 'caption'"):
        encode_corpus(TextOnly(), toy_dataset())
    whole = toy_dataset()
    bad = corpus_from_columns(["a", "bad"], ["x", "y"], [None, b"no picture"])
    dataset = RetrievalDataset(bad, whole.queries, {}, name="bad", split="test")
    with pytest.raises(ValueError, match="document 'bad': image cannot be decoded"):
        encode_corpus(ToyEncoder(), dataset)


def test_a_broken_image_can_fall_back_to_its_caption(caplog: pytest.LogCaptureFixture) -> None:
    whole, none = toy_dataset(), b"no picture"
    corpus = corpus_from_columns(
        ["a", "bad", "bare", "red"], ["tea", "a boat", None, "a cup"], [None, none, none, coloured_image("red")]
    )
    dataset = RetrievalDataset(corpus, whole.queries, {}, name="bad", split="test")
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        inputs = DocumentView(dataset, on_broken_image="caption").batch(0, 4)
    assert inputs[:3] == ["tea", "a boat", None]
    assert inputs[3]["text"] == "a cup"
    assert inputs[3]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert "document 'bad' falls back to its caption" in caplog.text
    assert "document 'bare' falls back to its caption" in caplog.text
    images = DocumentView(dataset, "image", captions=["1", "2", "3", "4"], on_broken_image="caption").batch(0, 4)
    assert images[:3] == ["1", None, None]
    names = {DocumentView(dataset, on_broken_image=way).fingerprint for way in ("fail", "caption")}
    assert len(names) == 1  # what was embedded before the first broken image is kept
    with pytest.raises(ValueError, match="`on_broken_image` must be one of fail, skip, caption; got 'ignore'"):
        DocumentView(dataset, on_broken_image="ignore")


def test_skipped_documents_are_never_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = toy_dataset()
    corpus = corpus_from_columns(["bad", "sea", "tea"], ["a cup", "the sea", "tea"], [b"no image", None, None])
    dataset = RetrievalDataset(corpus, whole.queries, {}, name="bad", split="test")
    view = DocumentView(dataset, on_broken_image="skip")
    options = EncodingOptions(shard_size=2)
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        kept = encode_corpus(ToyEncoder(), dataset, tmp_path, view, options)
    assert "document 'bad' is left out" in caplog.text
    memory = encode_corpus(ToyEncoder(), dataset, view=view, options=options)
    for found in (kept, memory, load_corpus(tmp_path)):
        assert found.live.tolist() == [False, True, True]
        hits = Retriever.from_corpus(ToyEncoder(), found).search("a cup", top_k=3)[0]
        assert {hit.id for hit in hits} == {"sea", "tea"}
    with pytest.raises(ValueError, match="another on_broken_image"):
        encode_corpus(ToyEncoder(), dataset, tmp_path, DocumentView(dataset, on_broken_image="caption"), options)


def test_dot_product_models_keep_their_lengths() -> None:
    model = ToyEncoder()
    model.similarity_fn_name = "dot"  # type: ignore[attr-defined]
    assert np.linalg.norm(encode_queries(model, ["red cup"])) > 2
    assert np.linalg.norm(encode_queries(ToyEncoder(), ["red cup"])) == pytest.approx(1)


def assert_processor_and_pooling_count() -> None:
    model = tiny_model()
    before = model_fingerprint(model)
    assert model_fingerprint(tiny_model()) == before
    model.processor.max_text_length = 7
    shorter = model_fingerprint(model)
    model.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert len({before, shorter, model_fingerprint(model)}) == 3
    pipeline = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())
    pipeline.config = model.config  # as sentence-transformers gives its pipelines one
    found = {model_fingerprint(pipeline)}
    pipeline[1] = torch.nn.ReLU()
    found.add(model_fingerprint(pipeline))
    pipeline.truncate_dim = 8  # type: ignore[assignment]
    found.add(model_fingerprint(pipeline))
    assert len(found) == 3


def test_fingerprint_follows_the_weights() -> None:
    torch.manual_seed(0)
    layer, twin = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert model_fingerprint(layer) != model_fingerprint(twin)
    twin.load_state_dict(layer.state_dict())
    assert model_fingerprint(layer) == model_fingerprint(twin)
    assert model_fingerprint(layer) != model_fingerprint(layer.half())
    assert_processor_and_pooling_count()
    with pytest.raises(TypeError, match=r"must be a torch module.*got object"):
        model_fingerprint(object())
