"""Copies of a relevant document under other ids never become its query's negatives."""

from __future__ import annotations

import pytest

from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.retrieval import DocumentView
from ciea_hf.training.data.examples import RetrievalExamples
from ciea_hf.training.data.mining import mine_negatives
from ciea_hf.training.data.negatives import MiningOptions
from ciea_hf.training.data.sampler import SampleKey
from tests.support.toy_retrieval import ToyEncoder, coloured_image


@pytest.fixture
def dataset() -> RetrievalDataset:
    """A text and a captioned image, each with two copies, and documents that share only one side with them."""
    documents = {
        "text": ("tea is a drink", None), "text-2": ("tea is a drink", None), "text-3": ("tea is a drink", None),
        "image": ("a cup", "red"), "image-2": ("a cup", "red"), "other-image": ("a cup", "green"),
        "other-caption": ("a red cup", "red"), "other-text": ("tea is hot", None),
    }  # fmt: skip
    images = [None if colour is None else coloured_image(colour) for _, colour in documents.values()]
    corpus = corpus_from_columns(list(documents), [text for text, _ in documents.values()], images)
    queries = queries_from_columns(["q-text", "q-image"], ["tea drink", "red cup"])
    qrels = {"q-text": {"text": 1, "text-2": 0}, "q-image": {"image": 1}}
    return RetrievalDataset(corpus, queries, qrels, "copies", "train")


def test_copies_are_found(dataset: RetrievalDataset) -> None:
    assert dataset.copies == {
        **dict.fromkeys(("text", "text-2", "text-3"), frozenset({"text", "text-2", "text-3"})),
        **dict.fromkeys(("image", "image-2"), frozenset({"image", "image-2"})),
    }


def test_copies_are_not_mined(dataset: RetrievalDataset) -> None:
    found = mine_negatives(ToyEncoder(), dataset, MiningOptions(depth=8, window=(0, 8))).by_query
    assert set(found["q-text"]["text"]) == {"other-text"}
    assert set(found["q-image"]["image"]) == {"other-image", "other-caption"}
    assert set(found["q-image"]["text"]) == {"text", "text-2", "text-3", "other-text"}


def test_copies_are_no_negatives_of_a_batch(dataset: RetrievalDataset) -> None:
    view = DocumentView(dataset)
    rows = {name: row for row, name in enumerate(view.ids)}
    mined = {"q-text": {"text": [rows["text-2"], rows["text-3"], rows["other-text"]]}}
    examples = RetrievalExamples(dataset, view, mined, {"text": 3})
    assert examples.negatives == {"q-text": {"text": [rows["other-text"]]}}
    example = examples[SampleKey(0, 0, 0)]
    assert set(example.relevant) == {rows["text"], rows["text-2"], rows["text-3"]}
    assert example.targets == [rows["text"]]
