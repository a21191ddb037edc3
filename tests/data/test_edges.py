"""Edge cases of data formats: which are accepted, and which are rejected with an error that names the location."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ciea_hf.data.export as saving_module
from ciea_hf.cli import main
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.builders.openclipart import _metadata
from ciea_hf.data.check_result import IssueCollector
from ciea_hf.data.checking import Checker
from ciea_hf.data.export import convert_dataset, write_cleaned
from ciea_hf.data.images import TsvImages
from ciea_hf.data.loading import open_reader
from tests.support import sample_datasets

if TYPE_CHECKING:
    from ciea_hf.data.check_result import CheckResult
    from ciea_hf.data.readers.base import DatasetReader


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def check(path: Path, splits: list[str] | None = None, workers: int = 0) -> tuple[DatasetReader, CheckResult]:
    source = open_reader(path, report=IssueCollector(Path(path)))
    return source, Checker(source, workers).run(splits)


def kinds(result: CheckResult) -> set[tuple[str, str | None]]:
    return {(issue.kind, issue.id) for issue in result.issues}


def rewrite(file: Path, **columns: Any) -> None:
    table = pq.read_table(file)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, file)


def refused(capsys: pytest.CaptureFixture[str], *command: str | Path) -> str:
    """Run a command that invalid input stops: status 2 and one line, after progress bars. Returns the line."""
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ciea: error: ")
    return error


# --- writing


@pytest.mark.parametrize("rows", [3, 9, 10])
def test_a_corpus_of_full_files_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(saving_module, "ROWS_PER_FILE", rows)
    monkeypatch.setattr("ciea_hf.data.export.ROWS_PER_BATCH", 3)
    convert_dataset(open_reader(sample_datasets.json_form(tmp_path / "data")), tmp_path / "own")
    files = sorted((tmp_path / "own" / "corpus").iterdir())
    assert len(files) == -(-9 // rows)
    assert all(pq.read_metadata(file).num_rows for file in files)
    assert len(load_retrieval_dataset(tmp_path / "own").corpus_ids) == 9
    assert len(datasets.load_dataset(str(tmp_path / "own"), "corpus", split="corpus")) == 9


def test_files_without_rows_are_skipped(tmp_path: Path) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    file = folder / "corpus" / "test-00000-of-00001.parquet"
    table = pq.read_table(file)
    file.unlink()
    pq.write_table(table, folder / "corpus" / "test-00000-of-00002.parquet")
    pq.write_table(table.slice(0, 0), folder / "corpus" / "test-00001-of-00002.parquet")
    assert len(load_retrieval_dataset(folder).corpus_ids) == 9


def test_splits_are_taken_in_the_order_of_the_source_and_once(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    with (folder / "train.json").open("a") as file:
        copy = sample_datasets.webqa_row("copy", "which square is yellow") | {"img_posFacts": ["30000002"]}
        file.write(json.dumps(copy) + "\n")
    for number, splits in enumerate((["test", "train"], ["train", "train", "test"])):
        source, result = check(folder, splits)
        assert {split: names for split, names in result.leaked.items() if names} == {"train": {"copy"}}
        counts = write_cleaned(source, result, tmp_path / str(number))
        assert (counts["train"], counts["test"]) == (2, 2)


def test_val_comes_before_test_and_numbered_splits_stay_apart(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    for old, new in (("dev", "val"), ("test", "dl-20"), ("train", "dl-19")):
        (folder / "qrels" / f"{old}.tsv").rename(folder / "qrels" / f"{new}.tsv")
    (folder / "qrels" / "test.tsv").write_text("q5\td6aa1\t1\n")
    assert open_reader(folder).splits == ["val", "test", "dl-19", "dl-20"]
    convert_dataset(open_reader(folder), tmp_path / "own")
    assert load_retrieval_dataset(tmp_path / "own", "dl-19").queries["id"][:] == ["q1", "q2"]
    assert load_retrieval_dataset(tmp_path / "own", "dl-20").queries["id"][:] == ["q4", "q5"]


def test_ids_that_restart_in_each_split_are_not_leaks(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    (folder / "queries").mkdir()
    (folder / "queries.jsonl").unlink()
    for split, texts in sample_datasets.QUESTIONS.items():
        rows = [{"id": number, "text": text} for number, text in enumerate(texts.values())]
        sample_datasets.write_lines(folder / "queries" / f"{split}.jsonl", rows)
        judged = [(n, name) for n, query in enumerate(texts) for name in sample_datasets.POSITIVES[query]]
        (folder / "qrels" / f"{split}.tsv").write_text("".join(f"{n}\t{name}\t1\n" for n, name in judged))
    source, result = check(folder)
    assert result.issues.counts["leak"] == 0
    assert result.issues.counts["reused-query-id"] == 3
    assert write_cleaned(source, result, tmp_path / "clean")["train"] == 2


def test_a_corpus_called_like_a_split_is_counted_apart(tmp_path: Path) -> None:
    counts = convert_dataset(open_reader(sample_datasets.mteb(tmp_path / "data")), tmp_path / "own")
    assert counts == {"test (corpus)": 9, "train": 2, "dev": 1, "test": 2}


def test_missing_and_empty_folders_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    out = tmp_path / "out"
    for form in ("webqa", "edis", "mbeir", "clueweb22-mm", "jsonl"):
        assert "not found" in refused(capsys, "data", "check", tmp_path / "gone", "--format", form)
    error = refused(capsys, "data", "check", tmp_path / "file.txt", "--format", "edis")
    assert "is a file; format 'edis' requires a folder" in error
    for form in ("edis", "clueweb22-mm"):
        refused(capsys, "data", "convert", tmp_path / "empty", "--output", out, "--format", form)
    bare = sample_datasets.webqa(tmp_path / "webqa")
    for split in ("train", "dev", "test"):
        (bare / f"{split}.json").unlink()
    assert "has no split" in refused(capsys, "data", "convert", bare, "--output", out)
    assert not out.exists()


def test_the_file_that_webqa_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    (folder / "imgs.tsv").rename(tmp_path / "imgs.tsv")
    assert "imgs.tsv: file not found" in refused(capsys, "data", "convert", folder, "--output", tmp_path / "out")


# --- images


def test_a_missing_image_of_edis_is_counted_once(tmp_path: Path) -> None:
    folder = sample_datasets.edis(tmp_path / "data")
    (folder / "edis_image" / "guardian" / "30000000.jpg").unlink()
    _, result = check(folder)
    assert result.issues.counts["missing-image"] == 1
    (folder / "EDIS_val.json").write_text(json.dumps([{"id": "q", "query": "q", "candidates": ["x", None, 7]}]))
    (folder / "EDIS_test.json").write_text(json.dumps([{"id": "r", "query": "r", "candidates": 5}]))
    (folder / "EDIS_candidates_1m.json").unlink()
    _, result = check(folder)
    assert result.issues.counts["unreadable"] == 2  # a message for each query
    assert "'candidates' must be a list; got int" in {issue.message for issue in result.issues}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_broken_line_before_the_indexed_one_costs_nothing(tmp_path: Path, workers: int) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    rows = (folder / "imgs.tsv").read_bytes().splitlines(keepends=True)
    location = next(number for number, row in enumerate(rows) if row.startswith(b"30000001"))
    rows.insert(location, b"30000001\t" + base64.b64encode(b"broken") + b"\n")
    (folder / "imgs.tsv").write_bytes(b"".join(rows))
    offset, index = 0, {}
    for row in rows:
        index[row.split(b"\t")[0].decode()] = offset  # of two lines the later one counts
        offset += len(row)
    (folder / "imgs.lineidx.new").write_text("".join(f"{name}\t{offset}\n" for name, offset in index.items()))
    source, result = check(folder, workers=workers)
    assert "30000001" not in result.unusable["corpus"]
    assert write_cleaned(source, result, tmp_path / "clean")["corpus"] == 8


def test_an_offset_of_any_size_can_miss(tmp_path: Path) -> None:
    file = tmp_path / "imgs.tsv"
    file.write_bytes(b"1\tAAAA\n")
    assert TsvImages(file, [0, 2**70]).encoded("1", 2**70)["path"].endswith(f"/{2**70}-0/1")


def test_images_of_json_lines_are_paths_in_two_forms_or_errors(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    rows[3]["image"] = {"path": rows[3]["image"], "bytes": None}
    rows[4]["image"] = 7
    rows[0]["image"] = {"path": None, "bytes": None}
    sample_datasets.write_lines(folder / "corpus.jsonl", rows)
    _, result = check(folder)
    assert result.counts["corpus: images"] == 6
    assert ("unreadable", rows[4]["id"]) in kinds(result)
    with pytest.raises(ValueError, match=r"corpus.jsonl:5: '30000001': 'image' must be a path in the folder; got 7"):
        load_retrieval_dataset(folder)
    rows[4]["image"] = "images/30000001.png"
    sample_datasets.write_lines(folder / "corpus.jsonl", rows)
    data = load_retrieval_dataset(folder)
    assert data.corpus[3]["image"].getpixel((0, 0)) == sample_datasets.COLOURS["30000000"]
    assert data.document_kinds["d5bc8"] == "text"


# --- lines and tables


def test_values_that_no_table_can_hold_are_errors_of_their_line(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"id": "half", "text": "half \\ud83d"}\n' + '{"id": "deep", "text": ' + "[" * 20_000 + "\n")
        file.write('{"id": "long", "text": ' + "9" * 5_000 + "}\n")
    _, result = check(folder)
    locations = [issue.location.number for issue in result.issues.of("unreadable")]
    assert locations == [10, 11, 12]
    with pytest.raises(ValueError, match=r"corpus.jsonl:10: a text contains a lone surrogate: '\\ud83d'"):
        load_retrieval_dataset(folder)


def test_rows_of_tables_without_an_id_or_an_image(tmp_path: Path) -> None:
    folder = sample_datasets.clueweb(tmp_path / "data")
    rewrite(folder / "image-00000-of-00002.parquet", BUFFER=[None, sample_datasets.png((0, 250, 0)), b"x"])
    data = load_retrieval_dataset(folder)
    assert data.document_kinds["30000000"] == "image"  # a missing one, as the check reports, and not a text
    rewrite(folder / "text.parquet", text_id=["d5bc8", None, "d70ff"])
    with pytest.raises(ValueError, match=r"text, row 2: 'text_id' must be a text or a number; got nothing"):
        load_retrieval_dataset(folder)


def test_broken_tables_are_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sample_datasets.mteb(tmp_path / "da[t]a")
    file = folder / "corpus" / "test-00000-of-00001.parquet"
    assert len(load_retrieval_dataset(folder).corpus_ids) == 9  # a path is not a pattern
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    assert str(file) in refused(capsys, "evaluate", "bm25", folder)
    file.write_bytes(content[:300])
    assert str(file) in refused(capsys, "evaluate", "bm25", folder)


def test_a_split_of_queries_may_serve_all_judgements(tmp_path: Path) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    files = sorted((folder / "query").iterdir())
    every = pa.concat_tables([pq.read_table(file) for file in files])
    for file in files:
        file.unlink()
    pq.write_table(every, folder / "query" / "queries-00000-of-00001.parquet")
    assert open_reader(folder).splits == ["train", "dev", "test"]
    data = load_retrieval_dataset(folder, "test")
    assert data.queries["id"][:] == ["q4", "q5"]
    assert data.qrels == sample_datasets.qrels_of("test")


def test_scores_and_texts_of_odd_types(tmp_path: Path) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    rewrite(folder / "qrels" / "test-00000-of-00001.parquet", score=[1.0, 0.5, float("inf")])
    rewrite(folder / "query" / "test-00000-of-00001.parquet", text=[4, 5])
    _, result = check(folder, ["test"])
    assert [issue.message for issue in result.issues.of("unreadable")] == [
        "the query must be a text; got 4", "the query must be a text; got 5",
        "'score' must be an integer; got 0.5", "'score' must be an integer; got inf",
    ]  # fmt: skip
    assert not result.splits["test"].queries
    corpus = folder / "corpus" / "test-00000-of-00001.parquet"
    rewrite(corpus, image=[7] * 9)
    _, result = check(folder, ["dev"])
    assert result.issues.counts["unreadable"] == 9
    assert "an image must be bytes, or have bytes or a path; got int" in {f.message for f in result.issues}


def test_headers_of_data_cards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    for config in ("corpus", "query", "qrels"):
        (folder / config).rename(folder / f"my-{config}")
    named = {"corpus": "my-corpus/*.parquet", "queries": "my-query/test-*", "qrels": ["my-qrels/test-*"]}
    lines = "".join(f"- config_name: {config}\n  data_files: {json.dumps(files)}\n" for config, files in named.items())
    (folder / "README.md").write_text(f"---\nconfigs:\n{lines}---\n")
    assert load_retrieval_dataset(folder, "train").queries["id"][:] == ["q4", "q5"]  # as `datasets` names it
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    assert "README.md: the header cannot be read" in refused(capsys, "data", "check", folder, "--format", "parquet")
    assert "is not recognised" in refused(capsys, "data", "check", folder)


def test_a_pool_of_mbeir_names_its_file(tmp_path: Path) -> None:
    folder = sample_datasets.mbeir(tmp_path / "data")
    pool = next(folder.rglob("*_cand_pool.jsonl"))
    _, result = check(pool)
    assert {issue.location.file for issue in result.issues} == {pool.name}


def test_drawings_in_unknown_encodings_have_no_title(tmp_path: Path) -> None:
    for name in ("foo-bar", "shift_jis"):
        file = tmp_path / f"{name}.svg"
        file.write_text(f'<?xml version="1.0" encoding="{name}"?><svg/>')
        assert _metadata(file) == ("", [], "")
