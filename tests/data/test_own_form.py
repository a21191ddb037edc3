"""The BEIR-style format, as users and the Hub provide it: folders, a card, single files, JSON lines."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow.parquet as pq
import pytest

from ciea_hf.cli import main
from ciea_hf.data import column_values, load_retrieval_dataset
from ciea_hf.data.loading import open_reader
from tests.support import sample_datasets
from tests.support.commands import fails
from tests.support.sample_datasets import CAPTIONS, COLOURS, TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def test_the_card_may_say_where_the_files_are(tmp_path: Path) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    (folder / "data").mkdir()
    card = ["configs:"]
    for config, name in (("corpus", "corpus"), ("queries", "query"), ("default", "qrels")):
        moved = (folder / name / "test-00000-of-00001.parquet").rename(folder / "data" / f"{config}.parquet")
        card += [f"- config_name: {config}", "  data_files:", "  - split: test", f"    path: data/{moved.name}"]
    for name in ("query", "qrels"):
        for file in (folder / name).iterdir():
            file.unlink()
    (folder / "README.md").write_text("\n".join(["---", *card, "---", "# Specimen"]))
    assert load_retrieval_dataset(folder, "test").qrels == sample_datasets.qrels_of("test")


@pytest.mark.parametrize(
    ("names", "splits"),
    [(("corpus", "queries", "qrels"), ["train"]), (("corpus", "query-test", "qrels-test"), ["test"])],
)
def test_single_files_need_no_folders(tmp_path: Path, names: tuple[str, ...], splits: list[str]) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    for config, name in zip(("corpus", "query", "qrels"), names, strict=True):
        (folder / config / "test-00000-of-00001.parquet").rename(folder / f"{name}.parquet")
        shutil.rmtree(folder / config)
    assert open_reader(folder).splits == splits
    data = load_retrieval_dataset(folder, splits[0])
    assert data.qrels == sample_datasets.qrels_of("test")
    assert data.corpus_ids == [*TEXTS, *CAPTIONS]


def test_an_older_column_name_and_a_missing_modality(tmp_path: Path) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    file = folder / "corpus" / "test-00000-of-00001.parquet"
    table = pq.read_table(file).drop_columns(["modality"])
    pq.write_table(table.rename_columns(["_id", *table.column_names[1:]]), file)
    data = load_retrieval_dataset(folder, "test")
    assert data.corpus_ids == [*TEXTS, *CAPTIONS]
    assert column_values(data.corpus, "modality") == ["text"] * 3 + ["image,text"] * 6
    assert data.corpus[3]["image"].getpixel((0, 0)) == COLOURS["30000000"]


def test_the_hub_is_read_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    card = [f"- config_name: {name}\n  data_files:" for name in ("corpus", "query", "qrels")]
    for number, name in enumerate(("corpus", "query", "qrels")):
        files = sorted((folder / name).iterdir())
        card[number] += "".join(
            f"\n  - split: {file.name.split('-')[0]}\n    path: {name}/{file.name}" for file in files
        )
    (folder / "README.md").write_text("\n".join(["---", "configs:", *card, "---", "# Specimen"]))

    def on_disk(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda path, *args, **kwargs: original({"mteb/specimen": str(folder)}.get(path, path), *args, **kwargs)

    for name in ("get_dataset_config_names", "get_dataset_split_names", "load_dataset"):
        monkeypatch.setattr(datasets, name, on_disk(getattr(datasets, name)))
    for split in ("train", "dev", "test"):
        data, local = load_retrieval_dataset("mteb/specimen", split), load_retrieval_dataset(folder, split)
        assert (data.name, data.qrels, data.fingerprint) == ("specimen", local.qrels, local.fingerprint)
    source = open_reader("mteb/specimen")
    assert [row.id for row in source.documents("test")] == [*TEXTS, *CAPTIONS]
    assert str(next(source.documents("test")).location) == "mteb/specimen, corpus, row 1"


def test_beir_folders(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    rows = [{"_id": name, "title": "T", "text": text} for name, text in TEXTS.items()] + [
        {"_id": "30000000", "image": "images/30000000.png"}
    ]
    sample_datasets.write_lines(folder / "corpus.jsonl", rows)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq5\td6aa1\t1\n")
    data = load_retrieval_dataset(folder, "test")
    assert column_values(data.corpus, "text") == [
        "T Red is a colour.",
        "T A square has four sides.",
        "T Grass is green.",
        None,
    ]
    assert column_values(data.corpus, "modality") == ["text"] * 3 + ["image"]
    assert column_values(data.queries, "id") == ["q5"]
    (folder / "qrels" / "test.tsv").unlink()
    sample_datasets.write_lines(folder / "qrels" / "test.jsonl", [{"query-id": "q5", "corpus-id": "d6aa1", "score": 2}])
    assert load_retrieval_dataset(folder, "test").qrels == {"q5": {"d6aa1": 2}}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_corpus_alone_can_be_searched(
    tmp_path: Path, model: str, cache: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    folder = (sample_datasets.json_form if form == "jsonl" else sample_datasets.mteb)(tmp_path / "data")
    for name in ("queries", "query", "qrels"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "queries.jsonl").unlink(missing_ok=True)
    data = load_retrieval_dataset(folder, split=None)
    assert (len(data.corpus_ids), len(data.queries), data.qrels) == (9, 0, {})
    lenient = ["--on-broken-image", "caption"]
    assert main(["search", model, str(folder), "red", "--top-k", "9", *lenient]) == 0
    assert main(["index", model, str(folder), "--output", str(tmp_path / "index"), *lenient]) == 0
    assert "9 documents, complete" in capsys.readouterr().out
    assert main(["search", model, str(tmp_path / "index"), "red", "--contact-sheet", str(tmp_path / "hits.png")]) == 0
    capsys.readouterr()
    alone = "has no splits: a corpus without queries and judgements can only be searched"
    assert alone in fails(capsys, "evaluate", model, str(folder))
    assert alone in fails(capsys, "data", "convert", str(folder), "--output", str(tmp_path / "converted"))
    assert main(["data", "check", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "'30000007': " in printed  # its image is broken
    assert "training cannot run: split 'train' not found" in printed


def test_an_index_of_a_corpus_alone_stays_valid_when_queries_are_added(
    tmp_path: Path, model: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    shutil.move(folder / "qrels", tmp_path / "qrels")
    index = str(tmp_path / "index")
    assert main(["index", model, str(folder), "--output", index, "--on-broken-image", "caption"]) == 0
    shutil.move(tmp_path / "qrels", folder / "qrels")
    assert main(["search", model, index, "red", "--contact-sheet", str(tmp_path / "hits.png")]) == 0
    assert (tmp_path / "hits.png").is_file()
