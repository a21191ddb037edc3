"""The project's own format of retrieval data sets: round trip, laziness, clear errors."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import ciea_hf.data.export as saving_module
from ciea_hf.data import (
    FORMATS,
    Format,
    RetrievalDataset,
    column_values,
    corpus_from_columns,
    load_retrieval_dataset,
    queries_from_columns,
    save_retrieval_dataset,
)
from ciea_hf.data.issues import Location
from ciea_hf.data.parsing import Judgement
from ciea_hf.data.readers.base import DatasetReader
from ciea_hf.data.readers.fields import CorpusEntry, Query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def toy(split: str = "test", images: tuple[object, ...] | None = None) -> RetrievalDataset:
    images = images or (png((250, 0, 0)), None, png((0, 0, 250)))
    return RetrievalDataset(
        corpus=corpus_from_columns(["d0", "d1", "d2"], ["a red thing", "words", None], images),
        queries=queries_from_columns(["q0", "q1", "q2"], ["red", "both", "unjudged"]),
        qrels={"q0": {"d0": 1, "d1": 0}, "q1": {"d1": 1, "d2": 2}},
        name="toy",
        split=split,
    )


def test_kinds() -> None:
    data = toy()
    assert column_values(data.corpus, "modality") == ["image,text", "text", "image"]
    assert data.corpus_ids == ["d0", "d1", "d2"]
    assert data.document_kinds == {"d0": "image", "d1": "text", "d2": "image"}
    assert data.query_kinds() == {
        "q0": "image",
        "q1": "mixed",
    }  # a score of 0 is not positive, and an unjudged query has no kind


def test_images_are_decoded_only_when_a_row_is_read(tmp_path: Path) -> None:
    data = toy(images=(b"no image at all", None, png((0, 0, 250))))
    assert data.document_kinds["d0"] == "image"
    assert data.query_kinds()["q0"] == "image"
    assert len(data.fingerprint) == 32
    save_retrieval_dataset({"test": data}, tmp_path / "saved", "# Toy")
    loaded = load_retrieval_dataset(tmp_path / "saved")
    assert loaded.corpus[2]["image"].getpixel((0, 0)) == (0, 0, 250)
    with pytest.raises(Exception, match="cannot identify image"):
        loaded.corpus[0]


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    path.write_bytes(png((0, 250, 0)))
    data = toy(images=(str(path), None, png((0, 0, 250))))
    save_retrieval_dataset({"test": data}, tmp_path / "saved", "# Toy\n\nA toy.", {"license": "cc-by-sa-4.0"})
    path.unlink()  # an image given by path is embedded
    loaded = load_retrieval_dataset(str(tmp_path / "saved"), split="test")
    assert loaded.qrels == data.qrels
    assert loaded.queries.to_list() == data.queries.to_list()
    assert column_values(loaded.corpus, "text") == ["a red thing", "words", None]
    assert loaded.document_kinds == data.document_kinds
    assert loaded.corpus[1]["image"] is None
    assert [loaded.corpus[i]["image"].getpixel((1, 1)) for i in (0, 2)] == [(0, 250, 0), (0, 0, 250)]
    assert loaded.corpus.features["image"] == datasets.Image()
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card
    assert card.rstrip().endswith("A toy.")


def test_plain_datasets_reads_the_configurations_of_the_card(tmp_path: Path) -> None:
    data = toy()
    save_retrieval_dataset({"train": toy("train"), "test": data}, tmp_path / "saved", "# Toy")
    folder = str(tmp_path / "saved")
    assert datasets.get_dataset_config_names(folder) == ["corpus", "queries", "qrels"]
    assert datasets.load_dataset(folder, "qrels", split="test").column_names == ["query-id", "corpus-id", "score"]
    assert len(datasets.load_dataset(folder, "corpus", split="train")) == 3


def test_a_corpus_of_several_files_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "ROWS_PER_FILE", 2)
    save_retrieval_dataset({"test": toy()}, tmp_path / "saved", "# Toy")
    names = sorted(file.name for file in (tmp_path / "saved" / "corpus").iterdir())
    assert names == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    assert load_retrieval_dataset(tmp_path / "saved").corpus_ids == ["d0", "d1", "d2"]


def test_one_corpus_serves_every_split(tmp_path: Path) -> None:
    dev = toy("dev")
    test = RetrievalDataset(dev.corpus, dev.queries.select([0]), {"q0": {"d0": 1}}, "toy", "test")
    save_retrieval_dataset({"dev": dev, "test": test}, tmp_path / "saved", "# Toy")
    assert len(list((tmp_path / "saved" / "corpus").iterdir())) == 1
    assert load_retrieval_dataset(tmp_path / "saved", "dev").corpus_ids == ["d0", "d1", "d2"]
    assert load_retrieval_dataset(tmp_path / "saved", "test").qrels == {"q0": {"d0": 1}}


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    data = toy()
    save_retrieval_dataset({"test": data}, tmp_path / "saved", "# Toy")
    assert load_retrieval_dataset(tmp_path / "saved").fingerprint == data.fingerprint == toy().fingerprint
    changed = [
        toy(images=(png((249, 0, 0)), None, png((0, 0, 250)))),
        RetrievalDataset(data.corpus, data.queries, {**data.qrels, "q2": {"d0": 1}}, "toy", "test"),
        RetrievalDataset(
            data.corpus, queries_from_columns(["q0", "q1", "q2"], ["r", "b", "u"]), data.qrels, "toy", "t"
        ),
        RetrievalDataset(data.corpus.select([0, 2, 1]), data.queries, data.qrels, "toy", "test"),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in changed)}) == 5


def test_fingerprint_is_the_same_in_another_process(tmp_path: Path) -> None:
    save_retrieval_dataset({"test": toy()}, tmp_path / "saved", "# Toy")
    code = (
        "import sys, datasets; datasets.config.HF_DATASETS_CACHE = sys.argv[2]; from ciea_hf.data import *; "
        "sys.stdout.write(load_retrieval_dataset(sys.argv[1]).fingerprint)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "saved"), str(tmp_path / "other-cache")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert result.stdout == toy().fingerprint


def test_fingerprint_reads_only_some_of_many_images() -> None:
    rng = np.random.default_rng(0)
    images = [png(tuple(rng.integers(256, size=3).tolist())) for _ in range(150)]
    ids = [f"d{i}" for i in range(150)]
    queries = queries_from_columns(["q"], ["?"])
    data = RetrievalDataset(corpus_from_columns(ids, ["t"] * 150, images), queries, {"q": {"d3": 1}}, "many", "test")
    assert data.fingerprint
    longer = [*images[:149], images[149] + b"\0"]  # one that is not sampled, one byte longer
    other = RetrievalDataset(corpus_from_columns(ids, ["t"] * 150, longer), queries, data.qrels, "many", "test")
    assert other.fingerprint != data.fingerprint


def test_failed_saving_leaves_nothing(tmp_path: Path) -> None:
    broken = toy(images=(str(tmp_path / "absent.png"), None, png((0, 0, 250))))
    with pytest.raises(FileNotFoundError):
        save_retrieval_dataset({"test": broken}, tmp_path / "saved", "# Toy")
    assert [path.name for path in tmp_path.iterdir() if "saved" in path.name] == []


@pytest.mark.parametrize("config", ["corpus", "queries", "qrels"])
def test_a_missing_part_of_a_folder_is_named(tmp_path: Path, config: str) -> None:
    save_retrieval_dataset({"test": toy()}, tmp_path / "saved", "# Toy")
    for file in (tmp_path / "saved" / config).iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match=f"saved/{config} contains no parquet file"):
        load_retrieval_dataset(tmp_path / "saved")


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    save_retrieval_dataset({"test": toy()}, tmp_path / "saved", "# Toy")
    file = tmp_path / "saved" / "qrels" / "test.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["corpus-id"]).replace_schema_metadata(None), file)
    with pytest.raises(ValueError, match=r"qrels/test\.parquet, row 1: .*'corpus-id' must be a text or a number"):
        load_retrieval_dataset(tmp_path / "saved")


def test_errors_name_the_choices(tmp_path: Path) -> None:
    save_retrieval_dataset({"dev": toy("dev"), "train": toy("train")}, tmp_path / "saved", "# Toy")
    with pytest.raises(ValueError, match=r"saved has no split 'test'; it has \['train', 'dev'\]"):
        load_retrieval_dataset(tmp_path / "saved", "test")
    with pytest.raises(ValueError, match="got 'csv'"):
        load_retrieval_dataset(tmp_path / "saved", "dev", format="csv")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_retrieval_dataset(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is not recognised"):
        load_retrieval_dataset(tmp_path / "empty")
    with pytest.raises(ValueError, match="at least one split"):
        save_retrieval_dataset({}, tmp_path / "none", "")
    with pytest.raises(ValueError, match="unique"):
        corpus_from_columns(["a", "a"], ["x", "y"], [None, None])
    with pytest.raises(ValueError, match="a text or an image"):
        corpus_from_columns(["a"], [None], [None])
    with pytest.raises(ValueError, match=r"corpus has no column \['image', 'modality'\]"):
        RetrievalDataset(toy().queries, toy().queries, {}, "toy", "test")


def test_a_judged_document_that_is_absent_is_named() -> None:
    data = toy()
    broken = RetrievalDataset(data.corpus, data.queries, {"q0": {"gone": 1}}, "toy", "test")
    with pytest.raises(ValueError, match="'q0' judges 'gone'"):
        broken.query_kinds()


def test_a_format_joins_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marker.txt").touch()
    location = Location("marker.txt")

    class Marked(DatasetReader):
        splits: Any = ("dev",)

        def documents(self, corpus: str) -> Iterator[CorpusEntry]:
            yield CorpusEntry(location, "d", "words", None)

        def queries(self, split: str) -> Iterator[Query]:
            yield Query(location, "q", f"the {split} query")

        def judgements(self, split: str) -> Iterator[Judgement]:
            yield Judgement(location, "q", "d", 1)

    monkeypatch.setitem(FORMATS, "marked", Format(lambda path: path.endswith("marker.txt"), Marked))
    loaded = load_retrieval_dataset(tmp_path / "marker.txt", "dev")
    assert (loaded.corpus_ids, loaded.queries["text"][:], loaded.qrels) == (["d"], ["the dev query"], {"q": {"d": 1}})
    monkeypatch.setattr(Marked, "corpus_files", lambda self, corpus: [])
    assert load_retrieval_dataset("anything", "dev", format="marked").name == "anything"
