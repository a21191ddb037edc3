"""Training lines of FlagEmbedding, tevatron and sentence-transformers, and the error for an unknown format."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import datasets
import pytest

from ciea_hf.cli import main
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.loading import FILES, FORMATS, open_reader

if TYPE_CHECKING:
    from pathlib import Path

ROWS: dict[str, list[dict[str, Any]]] = {
    "flagembedding": [{"query": "one", "pos": ["first"], "neg": ["other", "second"]},
                      {"query": "two", "pos": ["second"], "neg": []}],
    "tevatron": [{"query_id": "1", "query": "one", "positive_passages": [{"docid": "d1", "title": "", "text": "first"}],
                  "negative_passages": [{"docid": "d3", "text": "other"}, {"docid": "d2", "text": "second"}]},
                 {"query_id": "2", "query": "two", "positive_passages": [{"docid": "d2", "text": "second"}],
                  "negative_passages": []}],
    "triplets": [{"anchor": "one", "positive": "first", "negative": "other"},
                 {"anchor": "one", "positive": "first", "negative": "second"},
                 {"anchor": "two", "positive": "second", "negative": None}],
}  # fmt: skip


def texts_of(path: Path) -> dict[str, dict[str, int]]:
    """Return the judgements with texts in place of ids."""
    data = load_retrieval_dataset(path, "train")
    documents = dict(zip(data.corpus["id"], data.corpus["text"], strict=True))
    judged = {}
    for query, row in data.qrels.items():
        judged[data.query_texts[query]] = {documents[document]: score for document, score in row.items()}
    return judged


EXPECTED = {"one": {"first": 1, "other": 0, "second": 0}, "two": {"second": 1}}


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz", "mine.json", "folder/train.jsonl"])
def test_files_of_lines(tmp_path: Path, form: str, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in ROWS[form])
    if name.endswith(".json"):
        content = json.dumps(ROWS[form])
    file.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    path = file.parent if "/" in name else file
    assert texts_of(path) == EXPECTED
    assert open_reader(path).splits == ["train"]


@pytest.mark.parametrize("form", ["flagembedding", "triplets"])
def test_tables_of_lines(tmp_path: Path, form: str) -> None:
    table = datasets.Dataset.from_list(ROWS[form])
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "train.parquet")
    assert texts_of(tmp_path / "saved") == texts_of(tmp_path / "train.parquet") == EXPECTED


def test_splits_of_a_folder(tmp_path: Path) -> None:
    for split in ("dev", "train"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(ROWS["flagembedding"][0]) + "\n")
    (tmp_path / "notes.jsonl").write_text('{"a": 1}\n')
    assert open_reader(tmp_path).splits == ["train", "dev"]


def test_configurations_saved_by_datasets(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"id": ["a"], "text": ["x"]}).save_to_disk(tmp_path / "corpus")
    datasets.Dataset.from_dict({"id": ["q"], "text": ["y"]}).save_to_disk(tmp_path / "queries")
    datasets.Dataset.from_dict({"query-id": ["q"], "corpus-id": ["a"]}).save_to_disk(tmp_path / "qrels")
    assert texts_of(tmp_path) == {"y": {"x": 1}}
    assert main(["data", "check", str(tmp_path)]) == 0


def test_passages_that_are_no_texts_are_issues(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "one", "pos": [7]}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:1: .*'pos' must hold texts, or objects with 'text'; got 7"):
        load_retrieval_dataset(tmp_path / "a.jsonl", "train")


def test_the_error_for_an_unknown_format_lists_the_files_of_each(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("1\ta\n")
    with pytest.raises(ValueError, match="is not recognised") as caught:
        load_retrieval_dataset(tmp_path, "train")
    for name in FILES:
        assert f"{name}: {FILES[name]}" in str(caught.value)
    assert set(FILES) == {name for name in FORMATS if not name.endswith("-image")}
