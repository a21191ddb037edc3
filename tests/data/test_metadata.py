"""Further fields of documents, which are their metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.data import load_retrieval_dataset
from ciea_hf.retrieval.records import metadata_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_further_fields_are_metadata(tmp_path: Path, kind: str) -> None:
    rows = [
        {"id": "a", "text": "one", "year": 2001, "tags": ["x"]},
        {"id": "a", "text": "one", "year": 2001, "tags": ["x"]},
        {"id": "b", "text": "two", "year": None, "tags": None},
    ]
    if kind == "jsonl":
        (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet")
    corpus = load_retrieval_dataset(tmp_path, split=None).corpus
    assert corpus["id"][:] == ["a", "b"]
    assert metadata_rows(corpus) == [{"year": 2001, "tags": ["x"]}, {}]
    json.dumps(metadata_rows(corpus))
