"""BM25 beside the dense ranking, and their fusion by reciprocal ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ciea_hf.evaluation.baselines import bm25_run
from ciea_hf.retrieval import DocumentRecord, Retriever, SearchResult, encode_corpus, load_corpus
from ciea_hf.retrieval.bm25 import KeywordIndex, fuse
from tests.support.toy_retrieval import ToyEncoder, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


def test_fusion_adds_reciprocal_ranks() -> None:
    dense = SearchResult([["a", "b", "c"]], [[0.9, 0.8, 0.7]])
    sparse = SearchResult([["c", "d"]], [[12.0, 3.0]])
    fused = fuse([dense, sparse], 3)
    assert fused.ids == [["c", "a", "d"]]  # b and d tie at 1/62: the higher id is first
    assert fused.scores[0] == pytest.approx([1 / 63 + 1 / 61, 1 / 61, 1 / 62])
    assert fuse([dense, SearchResult([[]], [[]])], 9).ids == dense.ids


def test_keywords_rank_as_the_baseline() -> None:
    dataset = toy_dataset()
    corpus = encode_corpus(ToyEncoder(), dataset)
    queries = dataset.judged_queries()
    found = KeywordIndex(corpus).search(list(queries.values()), 6)
    expected = bm25_run(dataset, 6)
    for name, ids, scores in zip(queries, found.ids, found.scores, strict=True):
        assert dict(zip(ids, scores, strict=True)) == pytest.approx(expected[name])
        assert ids == sorted(expected[name], key=lambda document: (expected[name][document], document), reverse=True)


def test_hybrid_search_finds_what_either_ranking_finds(tmp_path: Path) -> None:
    corpus = encode_corpus(ToyEncoder(), toy_dataset(), tmp_path)
    retriever = Retriever(ToyEncoder(), corpus.index(), KeywordIndex(corpus, tmp_path))
    (folder,) = tmp_path.glob("bm25-*")
    hits = retriever.search(["wide", {"text": "tea", "image": None}, "zzz"], top_k=2)
    assert [row[0].id for row in hits[:2]] == ["txt-sea", "txt-tea"]
    assert hits[0][0].score == pytest.approx(2 / 61)
    assert len(hits[2]) == 2  # the dense ranking alone
    kept = retriever.search("cup drink", top_k=6, filter={"modality": "image"})[0]
    assert {hit.kind for hit in kept} == {"image"}
    again = Retriever(ToyEncoder(), corpus.index(), KeywordIndex(load_corpus(tmp_path), tmp_path))
    assert again.search("cup drink", top_k=6) == retriever.search("cup drink", top_k=6)
    corpus.upsert(np.ones((1, 64)), [DocumentRecord("new", "text", "a wide river")])
    with pytest.raises(ValueError, match="has changed"):
        retriever.search("wide", top_k=1)
    corpus.save(tmp_path)
    changed = KeywordIndex(load_corpus(tmp_path), tmp_path)
    assert set(changed.search(["wide"], 3).ids[0]) == {"new", "txt-sea"}
    assert [path for path in tmp_path.glob("bm25-*") if path != folder] == list(tmp_path.glob("bm25-*"))


def test_a_corpus_without_words_finds_nothing(tmp_path: Path) -> None:
    dataset = toy_dataset().select([3])
    corpus = encode_corpus(ToyEncoder(), dataset)
    for _ in range(2):  # built, and read
        assert KeywordIndex(corpus, tmp_path).search(["cup", ""], 3).ids == [[], []]
