"""Parquet files as people write them: types that vary, names of other libraries, shards, columns with other names."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.checking import Checker
from ciea_hf.data.export import convert_dataset
from ciea_hf.data.loading import open_reader
from tests.support.sample_datasets import png

if TYPE_CHECKING:
    from pathlib import Path

PNG = png((1, 2, 3))


def write_table(file: Path, columns: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), file)


def with_queries(folder: Path, *documents: str) -> Path:
    write_table(folder / "queries" / "train.parquet", {"id": ["q"], "text": ["a query"]})
    names = list(documents)
    judged = {"query-id": ["q"] * len(names), "corpus-id": names, "score": [1] * len(names)}
    write_table(folder / "qrels" / "train.parquet", judged)
    return folder


def contents(folder: Path) -> list[tuple[str, str | None, str]]:
    """Return the corpus as load and convert see it, which must be the same."""
    loaded = load_retrieval_dataset(folder, "train").corpus
    out = folder.parent / "converted"
    convert_dataset(open_reader(folder), out)
    converted = load_retrieval_dataset(out, "train").corpus
    assert not Checker(open_reader(folder)).run().issues.of("unreadable")
    rows = [list(zip(table["id"], table["text"], table["modality"], strict=True)) for table in (loaded, converted)]
    assert rows[0] == rows[1]
    return rows[0]


def test_shards_whose_images_have_different_types(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a", "b")
    write_table(folder / "corpus" / "train-00000-of-00003.parquet", {"id": ["a"], "text": ["x"], "image": pa.nulls(1)})
    image = [{"bytes": PNG, "path": None}]
    write_table(folder / "corpus" / "train-00001-of-00003.parquet", {"id": ["b"], "text": ["y"], "image": image})
    write_table(folder / "corpus" / "train-00002-of-00003.parquet", {"id": ["c"], "text": ["z"]})
    assert contents(folder) == [("a", "x", "text"), ("b", "y", "image,text"), ("c", "z", "text")]


@pytest.mark.parametrize(
    "images",
    [
        pa.array([PNG, None], pa.binary()),
        pa.array([PNG, None], pa.large_binary()),
        pa.array([PNG, None], pa.binary_view()),
        pa.array([list(PNG), None], pa.list_(pa.uint8())),
        pa.array([{"bytes": PNG, "path": None}, {"bytes": None, "path": None}]),
        pa.array([[{"bytes": PNG, "path": None}], []]),
    ],
)
def test_images_of_every_type(tmp_path: Path, images: Any) -> None:
    folder = with_queries(tmp_path / "data", "a")
    write_table(folder / "corpus" / "train.parquet", {"id": ["a", "b"], "text": ["x", "y"], "image": images})
    assert contents(folder) == [("a", "x", "image,text"), ("b", "y", "text")]
    assert load_retrieval_dataset(folder, "train").corpus[0]["image"].size == (24, 16)


@pytest.mark.parametrize("texts", [[1, 2], [["a"], ["b"]], [{"x": 1}, {"x": 2}], [1.5, 2.5], [True, False]])
def test_texts_that_are_no_texts_are_issues(tmp_path: Path, texts: Any) -> None:
    folder = with_queries(tmp_path / "data", "a")
    write_table(folder / "corpus" / "train.parquet", {"id": ["a", "b"], "text": texts})
    assert Checker(open_reader(folder)).run().issues.counts["unreadable"] == 2
    for use in (load_retrieval_dataset, lambda *_: convert_dataset(open_reader(folder), tmp_path / "out")):
        with pytest.raises(ValueError, match=r"row 1: 'a': the text must be a text; got"):
            use(folder, "train")


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a")
    write_table(folder / "corpus" / "corpus-00000-of-00002.parquet", {"id": ["a"], "text": ["x"]})
    with pytest.raises(FileNotFoundError, match=r"corpus-00001-of-00002\.parquet is missing from its series"):
        load_retrieval_dataset(folder, "train")


def test_names_of_other_libraries(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a", "b")
    write_table(folder / "corpus" / "part.0.parquet", {"id": ["a"], "text": ["x"]})
    write_table(folder / "corpus" / "part.1.parquet", {"id": ["b"], "text": ["y"]})
    (folder / "corpus" / "._part.0.parquet").write_bytes(b"resource fork")
    (folder / "corpus" / "_SUCCESS").write_bytes(b"")
    assert contents(folder) == [("a", "x", "text"), ("b", "y", "text")]


def test_a_folder_per_split(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for config, table in (("corpus", {"id": ["a"], "text": ["x"]}), ("queries", {"id": ["q"], "text": ["y"]}),
                          ("qrels", {"query-id": ["q"], "corpus-id": ["a"], "score": [1]})):  # fmt: skip
        write_table(folder / config / "train" / "0000.parquet", table)
    assert contents(folder) == [("a", "x", "text")]


def test_titles_captions_and_other_names_of_texts(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a")
    columns = {"id": ["a", "b", "c"], "title": ["T", None, ""], "caption": ["x", "y", None],
               "image": [None, {"bytes": PNG, "path": None}, {"bytes": PNG, "path": None}]}  # fmt: skip
    write_table(folder / "corpus" / "train.parquet", columns)
    assert contents(folder) == [("a", "T x", "text"), ("b", "y", "image,text"), ("c", None, "image")]


def test_two_different_texts_are_an_issue(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a")
    write_table(folder / "corpus" / "train.parquet", {"id": ["a"], "text": ["x"], "caption": ["y"]})
    with pytest.raises(ValueError, match="'text' and 'caption' are two different texts; keep one"):
        load_retrieval_dataset(folder, "train")


def test_what_a_row_holds_decides_its_modality(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a")
    image = [{"bytes": PNG, "path": None}, None]
    columns = {"id": ["a", "b"], "text": ["x", "y"], "image": image, "modality": ["text", "image,text"]}
    write_table(folder / "corpus" / "train.parquet", columns)
    assert contents(folder) == [("a", "x", "image,text"), ("b", "y", "text")]
    found = Checker(open_reader(folder)).run().issues.of("contradiction")
    assert [issue.id for issue in found] == ["a", "b"]


def test_columns_of_other_benchmarks(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_table(folder / "corpus" / "test.parquet", {"corpus-id": [7, 8], "image": [{"bytes": PNG, "path": None}] * 2})
    write_table(folder / "queries" / "test.parquet", {"query-id": [1], "query": ["what"]})
    write_table(folder / "qrels" / "test.parquet", {"query-id": [1], "corpus-id": [7]})
    data = load_retrieval_dataset(folder, "test")
    assert data.qrels == {"1": {"7": 1}}
    assert data.query_texts == {"1": "what"}
    assert data.document_kinds == {"7": "image", "8": "image"}


def test_queries_that_are_more_than_a_text_are_issues(tmp_path: Path) -> None:
    folder = with_queries(tmp_path / "data", "a")
    write_table(folder / "corpus" / "train.parquet", {"id": ["a"], "text": ["x"]})
    columns = {"id": ["q"], "text": ["a query"], "image": [{"bytes": PNG, "path": None}]}
    write_table(folder / "queries" / "train.parquet", columns)
    with pytest.raises(ValueError, match="'q': the query has 'image'; only queries that are texts are supported"):
        load_retrieval_dataset(folder, "train")


def json_lines(folder: Path, corpus: list[dict[str, Any]], queries: list[dict[str, Any]], compress: bool) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if compress:
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{name}.jsonl").write_bytes(content)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    (folder / "qrels" / "README.txt").write_text("These are the judgements.")
    (folder / "qrels" / ".train.tsv.swp").write_text("x")
    return folder


@pytest.mark.parametrize("compress", [True, False])
def test_json_lines_with_other_names_and_compressed(tmp_path: Path, compress: bool) -> None:
    corpus = [{"id": "a", "contents": "x"}, {"_id": "b", "title": "T", "text": "y"}]
    folder = json_lines(tmp_path / "data", corpus, [{"id": "q", "query": "z"}], compress)
    assert open_reader(folder).splits == ["train"]
    assert contents(folder) == [("a", "x", "text"), ("b", "T y", "text")]


@pytest.mark.parametrize("text", [["a", "b"], {"a": 1}, 7, True])
@pytest.mark.parametrize("part", ["corpus", "queries"])
def test_values_that_are_no_texts_are_issues_in_json_lines(tmp_path: Path, part: str, text: Any) -> None:
    corpus, queries = [{"id": "a", "title": "T", "text": "x"}], [{"id": "q", "text": "z"}]
    (corpus if part == "corpus" else queries)[0]["text"] = text
    folder = json_lines(tmp_path / "data", corpus, queries, False)
    (issue,) = Checker(open_reader(folder)).run().issues.of("unreadable")
    assert (issue.location.file, issue.location.number) == (f"{part}.jsonl", 1)
    with pytest.raises(ValueError, match=rf"{part}\.jsonl:1: '[aq]': the (text|query) must be a text; got"):
        load_retrieval_dataset(folder, "train")
