"""Copies of an index folder in an engine: resumed, brought up to date, and not searched while they are stale."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.retrieval import EncodingOptions, FlatIndex, ScanIndex, encode_shards, load_corpus, prune
from ciea_hf.retrieval.indexes.faiss import FaissIndex
from ciea_hf.retrieval.indexes.lancedb import LanceIndex
from ciea_hf.retrieval.indexes.syncing import open_index, sync_index
from ciea_hf.retrieval.manifests import DESCRIPTION
from tests.support.toy_retrieval import ToyEncoder, dataset_of

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = EncodingOptions(shard_size=2)
OLD = {"a": "red", "b": "tea", "c": "sea"}
NEW = {"a": "red", "b": "green tea", "d": "boat"}


def encode(folder: Path, texts: dict[str, str], append: bool = False) -> None:
    encode_shards(ToyEncoder(), dataset_of(texts), folder, options=OPTIONS, append=append)


def test_an_interrupted_copy_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, uri = tmp_path / "index", str(tmp_path / "lance")
    encode(folder, OLD)
    written: list[int] = []
    upsert = LanceIndex.upsert

    def failing(self: LanceIndex, embeddings: Any, records: Any) -> None:
        if written:
            raise OSError("the disk is full")
        written.append(len(records))
        upsert(self, embeddings, records)

    monkeypatch.setattr(LanceIndex, "upsert", failing)
    with pytest.raises(OSError, match="disk is full"):
        sync_index(folder, "lancedb", uri)
    assert type(open_index(folder)) is FlatIndex  # the copy is incomplete

    def counted(*arguments: Any) -> None:
        written.append(len(arguments[2]))
        upsert(*arguments)

    monkeypatch.setattr(LanceIndex, "upsert", counted)
    sync_index(folder, "lancedb", uri)
    assert written == [2, 1]
    assert type(open_index(folder)) is LanceIndex
    assert sorted(open_index(folder).ids) == ["a", "b", "c"]


def test_a_stale_copy_is_not_searched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "index"
    encode(folder, OLD)
    sync_index(folder, "lancedb", str(tmp_path / "lance"))
    encode(folder, NEW, append=True)
    prune(folder, dataset_of(NEW))
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        assert type(open_index(folder)) is FlatIndex
    assert "lancedb has an older state" in caplog.text
    sync_index(folder)  # the recorded kind
    index = open_index(folder)
    assert type(index) is LanceIndex
    assert sorted(index.ids) == sorted(load_corpus(folder).ids) == ["a", "b", "d"]
    query = ToyEncoder().encode_query(
        ["green tea"], batch_size=1, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
    )
    result = index.search(query, 1)
    assert result.ids == [["b"]]
    assert result.records()[0][0].text == "green tea"


def test_the_kind_of_a_folder_is_recorded(tmp_path: Path) -> None:
    encode(tmp_path, OLD)
    sync_index(tmp_path)
    assert not (tmp_path / DESCRIPTION).exists()
    for kind, expected in (("scan", ScanIndex), ("faiss", FaissIndex), ("flat", FlatIndex)):
        sync_index(tmp_path, kind)
        assert type(open_index(tmp_path)) is expected
        assert type(open_index(tmp_path, kind="scan")) is ScanIndex
    with pytest.raises(ValueError, match="`uri` is required"):
        sync_index(tmp_path, "qdrant")
    with pytest.raises(ValueError, match="`index` must be one of auto, flat"):
        sync_index(tmp_path, "annoy")
    for damaged in ("{", "[]", json.dumps({"kind": "annoy"})):
        (tmp_path / DESCRIPTION).write_text(damaged)
        with pytest.raises(ValueError, match=r"engine\.json"):
            open_index(tmp_path)
