"""One contract for all indexes: changes, persistence, and results equal to exact search, with and without filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ciea_hf.retrieval import DocumentRecord, EncodedCorpus, FlatIndex, ScanIndex
from ciea_hf.retrieval.indexes.base import CorpusIndex
from ciea_hf.retrieval.indexes.faiss import FaissIndex
from tests.support.index_contract import WIDTH, assert_exact, documents, exact, queries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ciea_hf.retrieval import Index

    Maker = Callable[[Path], Index]


def flat(_folder: Path) -> Index:
    return FlatIndex(EncodedCorpus([]), block_size=64)


def scan(_folder: Path) -> Index:
    return ScanIndex(EncodedCorpus([]), engine="numpy")


def scan_faiss(_folder: Path) -> Index:
    return ScanIndex(EncodedCorpus([]), engine="faiss")


def faiss_hnsw(_folder: Path) -> Index:
    return FaissIndex(EncodedCorpus([]))


def faiss_ivfpq(_folder: Path) -> Index:
    return FaissIndex(EncodedCorpus([]), method="ivfpq")


def lancedb(folder: Path) -> Index:
    from ciea_hf.retrieval.indexes.lancedb import LanceIndex

    return LanceIndex(str(folder))


def qdrant(folder: Path) -> Index:
    from ciea_hf.retrieval.indexes.qdrant import QdrantIndex

    return QdrantIndex(":memory:" if folder.name == "index" else str(folder))


def milvus(folder: Path) -> Index:
    from ciea_hf.retrieval.indexes.milvus import MilvusIndex

    return MilvusIndex(f"{folder}.db")


MAKERS = {
    "flat": flat, "scan": scan, "scan-faiss": scan_faiss, "faiss-hnsw": faiss_hnsw, "faiss-ivfpq": faiss_ivfpq,
    "lancedb": lancedb, "qdrant": qdrant, "milvus": milvus,
}  # fmt: skip


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Maker of an empty index of each kind."""
    for kind in (CorpusIndex, FaissIndex):  # so that the searches of few documents are indexed ones, too
        monkeypatch.setattr(kind, "few", 20)
    return MAKERS[request.param]


def test_results_equal_exact_search_with_every_filter(make: Maker, tmp_path: Path) -> None:
    vectors, records = documents(300)
    index = make(tmp_path / "index")
    index.add(vectors[:120], records[:120])
    index.add(torch.from_numpy(vectors[120:]), records[120:])
    assert len(index) == 300
    assert index.dimension == WIDTH
    assert sorted(index.ids) == sorted(record.id for record in records)
    assert_exact(index, vectors, records)


def test_records_come_with_the_results(make: Maker, tmp_path: Path) -> None:
    vectors, records = documents(30)
    index = make(tmp_path / "index")
    index.add(vectors, records)
    known = {record.id: record for record in records}
    result = index.search(queries(), 30)
    assert [[record.id for record in row] for row in result.records()] == result.ids
    assert all(record == known[record.id] for row in result.records() for record in row)


def test_documents_are_replaced_and_deleted(make: Maker, tmp_path: Path) -> None:
    vectors, records = documents(60)
    index = make(tmp_path / "index")
    index.add(vectors, records)
    with pytest.raises(ValueError, match="'d3' is already in the index"):
        index.add(vectors[:1], [records[3]])
    with pytest.raises(ValueError, match="'absent' is not in the index"):
        index.delete(["d1", "absent"])
    with pytest.raises(ValueError, match="'d1' occurs more than once"):
        index.upsert(vectors[:2], [records[1], records[1]])
    assert_exact(index, vectors, records)
    others, _ = documents(20, seed=5)
    changed = [DocumentRecord(f"d{n}", "text", f"new {n}", {"year": 2010, "site": "wiki"}) for n in range(50, 70)]
    index.upsert(others, changed)
    index.delete(["d0", "d69"])
    vectors = np.concatenate([vectors[1:50], others[:-1]])
    records = records[1:50] + changed[:-1]
    assert len(index) == len(records)
    assert sorted(index.ids) == sorted(record.id for record in records)
    assert_exact(index, vectors, records)


def test_a_saved_index_is_the_same(make: Maker, tmp_path: Path) -> None:
    vectors, records = documents(80)
    index = make(tmp_path / "stored")
    index.add(vectors[:50], records[:50])
    index.save(tmp_path / "saved")
    index.add(vectors[50:], records[50:])
    index.delete(["d7"])
    index.save(tmp_path / "saved")
    if hasattr(index, "close"):
        index.close()
    again = type(index).load(tmp_path / "saved")
    vectors, records = np.delete(vectors, 7, axis=0), records[:7] + records[8:]
    assert_exact(again, vectors, records)
    again.upsert(vectors[:1], [records[0]])
    assert_exact(again, vectors, records)


def test_invalid_arguments_are_named(make: Maker, tmp_path: Path) -> None:
    vectors, records = documents(20)
    index = make(tmp_path / "index")
    index.add(vectors, records)
    invalid: list[tuple[Any, type[Exception], str]] = [
        ({"yaer": 2020}, ValueError, "'yaer' is not in the index; its fields are id, kind"),
        ({"year": {"$above": 2020}}, ValueError, r"one of \$eq.*'\$above'"),
        ({"$nor": [{"year": 1}]}, ValueError, r"\$and, \$or, \$not; got '\$nor'"),
        ({"year": {"$in": "2020"}}, TypeError, "list of values"),
        ({"year": {"$gt": True}}, TypeError, "numbers or texts; got True"),
        ({"year": float("nan")}, ValueError, "must be finite"),
        ({"year": object()}, TypeError, "a text, a number or a bool"),
        ({"year": {}}, ValueError, "the condition on 'year' is empty"),
        ({"$and": []}, TypeError, "list of filters"),
        ({"$or": [{}]}, ValueError, "empty filter"),
        ("year", TypeError, "dict of conditions"),
    ]
    for condition, error, message in invalid:
        with pytest.raises(error, match=message):
            index.search(queries(), 3, condition)
    with pytest.raises(ValueError, match="`top_k` must be at least 1; got 0"):
        index.search(queries(), 0)
    with pytest.raises(ValueError, match=r"\(queries, 32\)"):
        index.search(np.ones((2, 5), dtype=np.float32), 3)
    with pytest.raises(ValueError, match="row 1 of `queries` is not finite"):
        index.search(np.array([[0.0] * WIDTH, [np.nan] * WIDTH]), 3)
    with pytest.raises(ValueError, match="width 32"):
        index.add(np.ones((1, 5)), [DocumentRecord("x")])
    with pytest.raises(ValueError, match="row 0 of `embeddings` is not finite"):
        index.add(np.full((1, WIDTH), np.inf), [DocumentRecord("x")])
    with pytest.raises(ValueError, match="equally many; got 2 and 1"):
        index.add(vectors[:2], [DocumentRecord("x")])
    assert len(index) == 20


def test_an_empty_index_finds_nothing(make: Maker, tmp_path: Path) -> None:
    index = make(tmp_path / "index")
    assert len(index) == 0
    assert index.search(queries(2), 3).ids == [[], []]
    vectors, records = documents(3)
    index.add(vectors, records)
    index.delete(["d0", "d1", "d2"])
    assert index.search(queries(2), 3).ids == [[], []]
    assert index.search(queries(2), 3, {"modality": "image"}).records() == [[], []]


def test_single_and_many_queries_agree(make: Maker, tmp_path: Path) -> None:
    vectors, records = documents(200)
    index = make(tmp_path / "index")
    index.add(vectors, records)
    asked = queries(9)
    together = index.search(asked, 12)
    alone = [index.search(query[None], 12) for query in asked]
    assert together.ids == [row.ids[0] for row in alone]
    np.testing.assert_array_equal(together.scores, [row.scores[0] for row in alone])
    assert together.ids == [[name for name, _ in exact(vectors, records, query, 12)] for query in asked]
