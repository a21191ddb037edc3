"""Exactness of the indexes over a corpus: ties, precisions, blocks; and the steps of the code scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ciea_hf.retrieval import EncodedCorpus, FlatIndex, ScanIndex
from ciea_hf.retrieval.indexes import corpus_index, index_class, scan
from ciea_hf.retrieval.precision import sign_codes
from ciea_hf.retrieval.results import exact_scores
from ciea_hf.retrieval.ties import top_k_with_ties

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.retrieval import SearchResult


def integer_vectors(seed: int, rows: int, width: int = 4) -> torch.Tensor:
    """Vectors with small integer entries: products are exact and ties are frequent."""
    return torch.randint(-2, 3, (rows, width), generator=torch.Generator().manual_seed(seed)).float()


def oracle(queries: torch.Tensor, documents: torch.Tensor, ids: list[str], k: int) -> list[list[tuple[str, float]]]:
    rows = []
    for query in queries:
        scores = {name: float(query @ document) for name, document in zip(ids, documents, strict=True)}
        rows.append(sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)[:k])
    return rows


def found(result: SearchResult) -> list[list[tuple[str, float]]]:
    return [list(zip(ids, scores, strict=True)) for ids, scores in zip(result.ids, result.scores, strict=True)]


@pytest.mark.parametrize("cuts", [[], [7], [1, 30, 31]])
@pytest.mark.parametrize("block_size", [5, 1000])
@pytest.mark.parametrize("top_k", [1, 6, 100])
@pytest.mark.parametrize("asked", [1, 11])
def test_search_equals_a_full_sort_with_ties(
    cuts: list[int], block_size: int, top_k: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlatIndex, "few", 0)
    documents, queries = integer_vectors(0, 60), integer_vectors(1, asked)
    ids = [f"d{i * 7919 % 1000}" for i in range(60)]
    corpus = EncodedCorpus.from_embeddings(list(documents.tensor_split(cuts)), ids)
    index = FlatIndex(corpus, block_size=block_size, query_block_size=4)
    assert found(index.search(queries, top_k)) == oracle(queries, documents, ids, top_k)
    if top_k == 6 and asked > 1:
        scores = queries @ documents.T
        assert ((scores >= scores.topk(6).values[:, -1:]).sum(1) > 6).any(), "the case must hold ties at the cut-off"


@pytest.mark.parametrize("asked", [1, 9])
def test_more_ties_than_candidates_are_ordered_by_id(asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 equal documents: more than a batched search keeps per query."""
    monkeypatch.setattr(FlatIndex, "few", 0)
    one = np.random.default_rng(0).normal(size=(1, 33)).astype(np.float32)
    other = np.random.default_rng(1).normal(size=(50, 33)).astype(np.float32)
    ids = [f"{number:03d}" for number in np.random.default_rng(2).permutation(200)]
    corpus = EncodedCorpus.from_embeddings(np.concatenate([other, np.repeat(one, 150, axis=0)]), ids)
    for index in (FlatIndex(corpus, block_size=64), ScanIndex(corpus)):
        result = index.search(np.repeat(one, asked, axis=0), 3)
        assert result.ids == [sorted(ids[50:], reverse=True)[:3]] * asked
        assert len({score for row in result.scores for score in row}) == 1


@pytest.mark.parametrize("documents", [1, 5, 6, 7, 63, 64, 65, 130])
def test_equal_documents_score_alike_at_every_position(documents: int) -> None:
    rng = np.random.default_rng(0)
    query, one = rng.normal(size=100).astype(np.float32), rng.normal(size=(1, 100)).astype(np.float32)
    scores = exact_scores(query, np.repeat(one, documents, axis=0))
    assert scores.shape == (documents,)
    assert len(set(scores.tolist())) == 1
    np.testing.assert_allclose(scores[0], one[0] @ query, rtol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float16", 1e-3), ("int8", 6e-3)])
@pytest.mark.parametrize("kind", ["flat", "scan"])
def test_stored_precisions(precision: str, tolerance: float, kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(300, 24)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    ids = [str(i) for i in range(300)]
    EncodedCorpus.from_embeddings(documents, ids, precision=precision).save(tmp_path)
    index = index_class(kind).load(tmp_path)
    queries = documents[:4]
    result = index.search(queries, 5)
    assert [row[0] for row in result.ids] == ids[:4]
    exact = queries @ documents.T
    for row, (names, scores) in enumerate(zip(result.ids, result.scores, strict=True)):
        np.testing.assert_allclose(scores, exact[row, list(map(int, names))], atol=tolerance)
        assert scores[-1] >= np.sort(exact[row])[-5] - 2 * tolerance


def test_binary_embeddings_are_signs() -> None:
    documents = np.array([[0.5, -0.1, 0.2], [-0.5, 0.1, 0.2], [0.1, 0.1, -0.1]], dtype=np.float32)
    corpus = EncodedCorpus.from_embeddings(documents, ["a", "b", "c"], precision="binary")
    signs = np.array([[1, -1, 1], [-1, 1, 1], [1, 1, -1]]) / np.sqrt(3)
    np.testing.assert_allclose(corpus.matrix(), signs, rtol=1e-6)
    query = np.array([[1.0, 0.5, 0.0]], dtype=np.float32)
    result = corpus.index().search(query, 3)
    assert result.ids == [["c", "a", "b"]]
    np.testing.assert_allclose(result.scores[0], (signs @ query[0])[[2, 0, 1]], rtol=1e-6)


def test_dot_products_of_vectors_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlatIndex, "few", 0)
    rng = np.random.default_rng(0)
    documents = (rng.normal(size=(500, 16)) * rng.exponential(100, size=(500, 1))).astype(np.float32)
    corpus = EncodedCorpus.from_embeddings(documents, [f"{i:03d}" for i in range(500)])
    corpus.settings["normalized"] = False
    queries = rng.normal(size=(7, 16)).astype(np.float32)
    expected = np.argsort(-(queries.astype(np.float64) @ documents.T.astype(np.float64)), axis=1)[:, :9]
    assert FlatIndex(corpus).search(queries, 9).ids == [[f"{i:03d}" for i in row] for row in expected]


def test_hamming_distances_equal_counted_bits() -> None:
    rng = np.random.default_rng(0)
    for bits, rows in ((8, 5), (100, 3), (768, 70_000)):
        signs, query = rng.normal(size=(rows, bits)), rng.normal(size=bits)
        words = scan._as_words(sign_codes(signs.astype(np.float32)))
        asked = scan._as_words(sign_codes(query[None].astype(np.float32)))[:, 0]
        expected = ((signs > 0) != (query > 0)).sum(axis=1)
        np.testing.assert_array_equal(scan.hamming_distances(words, asked), expected)


def test_smallest_distances_include_ties() -> None:
    distances = np.array([5, 1, 3, 3, 9, 3], dtype=np.uint16)
    assert scan.smallest(distances, 1).tolist() == [1]
    assert scan.smallest(distances, 2).tolist() == [1, 2, 3, 5]
    assert scan.smallest(distances, 5).tolist() == [0, 1, 2, 3, 5]
    assert scan.smallest(distances, 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("part", [1.0, 0.6, 0.05])
def test_scan_keeps_recall_under_filters(part: float) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(100, 128))
    documents = (centres[rng.integers(0, 100, 20_000)] + rng.normal(size=(20_000, 128))).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    corpus = EncodedCorpus.from_embeddings(documents, [str(i) for i in range(20_000)])
    mask = rng.random(20_000) < part
    corpus.delete([str(i) for i in np.flatnonzero(~mask)])
    queries = documents[rng.integers(0, 20_000, 50)] + 0.02 * rng.normal(size=(50, 128)).astype(np.float32)
    exact, scanned = FlatIndex(corpus).search(queries, 10), ScanIndex(corpus).search(queries, 10)
    pairs = zip(exact.ids, scanned.ids, strict=True)
    assert np.mean([len({*one} & {*two}) / 10 for one, two in pairs]) >= 0.99


def test_top_k_keeps_the_higher_rank_at_the_cutoff() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    values, columns = top_k_with_ties(scores, torch.tensor([0, 2, 1, 3]), 2)
    assert set(columns[0].tolist()) == {3, 1}
    assert values[0].tolist() == [2.0, 1.0]


def test_kinds_of_indexes() -> None:
    corpus = EncodedCorpus.from_embeddings(np.eye(3), ["a", "b", "c"])
    assert type(corpus.index()) is FlatIndex
    assert type(corpus.index("scan")) is ScanIndex
    with pytest.raises(ValueError, match="one of auto, flat, scan, faiss, lancedb, qdrant, milvus; got 'hnsw'"):
        corpus.index("hnsw")
    with pytest.raises(ValueError, match="auto, flat, scan or faiss for a corpus; got 'qdrant'"):
        corpus_index(corpus, "qdrant")


def test_the_default_for_many_documents_is_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciea_hf.retrieval.indexes.FLAT_UP_TO", 2)
    assert type(EncodedCorpus.from_embeddings(np.eye(3), ["a", "b", "c"]).index()) is ScanIndex


def test_bad_embeddings_are_named() -> None:
    with pytest.raises(ValueError, match="equally many; got 3 and 2"):
        EncodedCorpus.from_embeddings(np.eye(3), ["a", "b"])
    with pytest.raises(ValueError, match="`ids` must be unique; 'a'"):
        EncodedCorpus.from_embeddings(np.eye(2), ["a", "a"])
    with pytest.raises(ValueError, match="must have one width"):
        EncodedCorpus.from_embeddings([np.eye(2), np.eye(3)], list("abcde"))
    with pytest.raises(ValueError, match="`precision` must be one of float32, float16, int8, binary; got 'int4'"):
        EncodedCorpus.from_embeddings(np.eye(2), ["a", "b"], precision="int4")
