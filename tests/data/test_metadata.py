"""Further fields of documents, which are their metadata."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.data import load_retrieval_dataset, save_retrieval_dataset
from ciea_hf.data.export import convert_dataset
from ciea_hf.data.loading import open_reader
from ciea_hf.retrieval.records import metadata_rows
from tests.support import sample_datasets
from tests.support.sample_datasets import png

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


def write_corpus(folder: Path, kind: str) -> None:
    """Write a corpus with two further fields, whose first shard has no image."""
    day = dt.date(2001, 2, 3)
    if kind == "jsonl":
        rows = [{"id": "a", "text": "one", "year": 2001, "day": str(day)}, {"id": "b", "text": "two", "year": 2002}]
        (folder / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        return
    (folder / "corpus").mkdir()
    image: Any = [{"bytes": png((1, 2, 3)), "path": None}]
    images = (pa.nulls(1), image) if kind == "types" else (["a.png"], [None]) if kind == "paths" else (image, image)
    (folder / "a.png").write_bytes(png((1, 2, 3)))
    for number, (name, year) in enumerate((("a", 2001), ("b", 2002))):
        columns = {"id": [name], "text": ["one"], "year": [year], "image": images[number]}
        columns["day"] = pa.array([None if number else day])
        pq.write_table(pa.table(columns), folder / "corpus" / f"train-0000{number}-of-00002.parquet")


@pytest.mark.parametrize("kind", ["jsonl", "same", "types", "paths"])
def test_metadata_survive_every_reader_and_conversion(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_corpus(folder, kind)
    for config, columns in (
        ("queries", {"id": ["q"], "text": ["a"]}),
        ("qrels", {"query-id": ["q"], "corpus-id": ["a"], "score": [1]}),
    ):
        (folder / config).mkdir()
        pq.write_table(pa.table(columns), folder / config / "train.parquet")
    if kind == "jsonl":
        (folder / "queries.jsonl").write_text('{"id": "q", "text": "a"}')
        (folder / "qrels" / "train.tsv").write_text("q\ta\t1\n")
    expected = [{"year": 2001, "day": "2001-02-03"}, {"year": 2002}]
    data = load_retrieval_dataset(folder, "train")
    assert metadata_rows(data.corpus) == expected
    convert_dataset(open_reader(folder), tmp_path / "converted")
    save_retrieval_dataset({"train": data}, tmp_path / "saved", "# Saved")
    for copy in ("converted", "saved"):
        assert metadata_rows(load_retrieval_dataset(tmp_path / copy, "train").corpus) == expected
        convert_dataset(open_reader(tmp_path / copy), tmp_path / "again")
        assert metadata_rows(load_retrieval_dataset(tmp_path / "again", "train").corpus) == expected


def test_a_corpus_without_further_fields_has_no_column_for_them(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    convert_dataset(open_reader(folder), tmp_path / "converted")
    file = next((tmp_path / "converted" / "corpus").iterdir())
    assert pq.read_schema(file).names == ["id", "text", "image", "modality"]


@pytest.mark.parametrize("key", ["img", "image_path", "images"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_image_under_another_name_is_not_metadata(tmp_path: Path, kind: str, key: str) -> None:
    row = {"id": "a", "text": "one", key: ["x.png"] if key == "images" else "x.png"}
    if kind == "jsonl":
        (tmp_path / "corpus.jsonl").write_text(json.dumps(row))
    else:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "corpus.parquet")
    with pytest.raises(ValueError, match=f"'a': the image is under '{key}'; its name must be 'image'"):
        load_retrieval_dataset(tmp_path, split=None)
