from __future__ import annotations

import math

import pytest

from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.evaluation.baselines import bm25_run
from ciea_hf.evaluation.robustness import corrupt_captions
from tests.support.toy_retrieval import coloured_image, toy_dataset

WORDS = {"d1": "red cup red", "d2": "red boat", "d3": "green cup", "d4": "sea", "d5": "red boat"}


def word_dataset(queries: dict[str, str]) -> RetrievalDataset:
    corpus = corpus_from_columns(list(WORDS), list(WORDS.values()), [None] * len(WORDS))
    asked = queries_from_columns(list(queries), list(queries.values()))
    return RetrievalDataset(corpus, asked, {name: {"d1": 1} for name in queries}, "words", "test")


def lucene(query: str, k1: float, b: float) -> dict[str, float]:
    texts = {name: text.split() for name, text in WORDS.items()}
    mean = sum(map(len, texts.values())) / len(texts)
    scores: dict[str, float] = {}
    for name, words in texts.items():
        for word in query.split():
            df = sum(word in other for other in texts.values())
            tf = words.count(word)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            scores[name] = scores.get(name, 0) + idf * tf / (tf + k1 * (1 - b + b * len(words) / mean))
    return {name: score for name, score in scores.items() if score > 0}


def test_bm25_equals_the_formula() -> None:
    queries = {"q1": "red cup", "q2": "boat sea unknown", "q3": "nothing of this"}
    run = bm25_run(word_dataset(queries), k1=1.2, b=0.5)
    assert run["q1"] == pytest.approx(lucene("red cup", 1.2, 0.5), abs=1e-6)
    assert run["q2"] == pytest.approx(lucene("boat sea", 1.2, 0.5), abs=1e-6)
    assert run["q3"] == {}


def test_bm25_cuts_ties_by_document_id_and_takes_other_captions() -> None:
    dataset = word_dataset({"q": "boat"})
    assert list(bm25_run(dataset, top_k=1)["q"]) == ["d5"]
    assert set(bm25_run(dataset, captions=["boat", "x", "x", None, "x"])["q"]) == {"d1"}


def test_bm25_finds_nothing_where_there_are_no_words() -> None:
    dataset = word_dataset({"q": "boat", "r": "sea"})
    assert bm25_run(dataset, captions=[None, "", "a", None, None]) == {"q": {}, "r": {}}


def captioned(count: int = 40) -> RetrievalDataset:
    ids = [f"i{number:02d}" for number in range(count)] + ["text"]
    texts = [f"caption {number}" for number in range(count)] + ["a text"]
    corpus = corpus_from_columns(ids, texts, [coloured_image("red")] * count + [None])
    return RetrievalDataset(corpus, queries_from_columns([], []), {}, "captioned", "test")


def test_dropped_captions_are_a_share_that_only_grows() -> None:
    dataset = captioned()
    gone = [{i for i, text in enumerate(corrupt_captions(dataset, drop=p)) if text is None} for p in (0, 0.25, 0.5, 1)]
    assert [len(places) for places in gone] == [0, 10, 20, 40]
    assert gone[1] < gone[2] < gone[3]
    assert gone[1] != {i for i, text in enumerate(corrupt_captions(dataset, drop=0.25, seed=1)) if text is None}


def test_swapped_captions_belong_to_others() -> None:
    dataset = captioned()
    own = dataset.corpus["text"][:]
    swapped = corrupt_captions(dataset, swap=0.5)
    assert sum(a != b for a, b in zip(own, swapped, strict=True)) == 20
    assert sorted(map(str, swapped)) == sorted(own)
    assert sum(a != b for a, b in zip(own, corrupt_captions(dataset, swap=0.02), strict=True)) == 2  # one has no other
    assert swapped[-1] == "a text"
    assert corrupt_captions(toy_dataset(), drop=1.0) == [None, None, None, None, "tea is a drink", "the sea is wide"]
    with pytest.raises(ValueError, match="`swap` must be between 0 and 1"):
        corrupt_captions(dataset, swap=2)
