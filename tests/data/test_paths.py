"""Images of a data set: inside its folder, regular files, never fetched, and images at all."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.cli import main
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.checking import Checker
from ciea_hf.data.export import convert_dataset
from ciea_hf.data.loading import open_reader
from tests.support.sample_datasets import png

if TYPE_CHECKING:
    from pathlib import Path


def lines(folder: Path, image: Any) -> Path:
    """Write a data set of JSON lines whose second document has an image at a path."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "good.png").write_bytes(png((1, 2, 3)))
    rows = [{"id": "a", "text": "a", "image": "good.png"}, {"id": "b", "text": "b", "image": image}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text('{"id": "q", "text": "a"}\n')
    (folder / "qrels" / "train.tsv").write_text("q\ta\t1\n")
    return folder


def tables(folder: Path, image: Any, as_texts: bool = False) -> Path:
    """Write the same data set as parquet files."""
    for config in ("corpus", "queries", "qrels"):
        (folder / config).mkdir(parents=True)
    (folder / "good.png").write_bytes(png((1, 2, 3)))
    images: list[Any] = [{"bytes": None, "path": "good.png"}, {"bytes": None, "path": image}]
    if as_texts:
        images = ["good.png", image]
    pq.write_table(
        pa.table({"id": ["a", "b"], "text": ["a", "b"], "image": images}), folder / "corpus" / "train.parquet"
    )
    pq.write_table(pa.table({"id": ["q"], "text": ["a"]}), folder / "queries" / "train.parquet")
    pq.write_table(pa.table({"query-id": ["q"], "corpus-id": ["a"], "score": [1]}), folder / "qrels" / "train.parquet")
    return folder


def tables_of_paths(folder: Path, image: Any) -> Path:
    """Write the same data set as parquet files whose column of images has paths alone."""
    return tables(folder, image, as_texts=True)


forms = pytest.mark.parametrize("write", [lines, tables, tables_of_paths])


@forms
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.txt", "is outside the data set's folder"),
        ("/etc/passwd", "is outside the data set's folder"),
        ("sub/../../secret.txt", "is outside the data set's folder"),
        ("link.png", "is outside the data set's folder"),
        ("folder/secret.txt", "is outside the data set's folder"),
        ("http://127.0.0.1:9/x.png", "is a URL; images are read from files, and nothing is fetched"),
        ("file:///etc/passwd", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("pipe.png", "is not a regular file"),
        ("sub", "is not a regular file"),
    ],
)
def test_paths_that_lead_elsewhere_are_issues_for_every_reader(
    tmp_path: Path, write: Any, path: str, message: str
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = write(tmp_path / "data", path)
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.png")
    result = Checker(open_reader(folder)).run()
    (issue,) = result.issues.of("unreadable")
    assert issue.id == "b"
    assert issue.location.number == 2
    assert message in issue.message
    assert result.blocking_errors
    for use in (
        lambda: load_retrieval_dataset(folder, "train"),
        lambda: convert_dataset(open_reader(folder), tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert not (tmp_path / "out").exists()


@forms
def test_device_files_are_not_opened(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "data", "zero.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    assert main(["data", "check", str(folder)]) == 1


@forms
def test_relative_paths_begin_at_the_data_set(tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "data", "sub/../good.png")
    (folder / "sub").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = load_retrieval_dataset(folder, "train")
    assert data.document_kinds == {"a": "image", "b": "image"}
    assert [image.size for image in data.corpus["image"]] == [(24, 16)] * 2


@forms
def test_another_root_may_be_named(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "data", "other.png")
    (tmp_path / "images").mkdir()
    for name in ("good.png", "other.png"):
        (tmp_path / "images" / name).write_bytes(png((7, 7, 7), (5, 5)))
    (folder / "good.png").unlink()
    data = load_retrieval_dataset(folder, "train", image_root=tmp_path / "images")
    assert [image.size for image in data.corpus["image"]] == [(5, 5)] * 2
    options = ["--image-root", str(tmp_path / "images")]
    assert main(["data", "check", str(folder), *options]) == 0
    assert main(["data", "convert", str(folder), "--output", str(tmp_path / "out"), *options]) == 0
    assert [row["path"] for row in pq.read_table(tmp_path / "out" / "corpus")["image"].to_pylist()] == [
        "good.png",
        "other.png",
    ]


@forms
def test_a_file_that_is_no_image_is_not_published(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "data", "notes.txt")
    (folder / "notes.txt").write_text("private")
    with pytest.raises(ValueError, match="the image of document 'b' cannot be read: cannot identify image file"):
        convert_dataset(open_reader(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image", [{"url": "http://127.0.0.1:9/x.png"}, {"url": "x.png", "alt": "a cat"}])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_image_under_another_key_is_an_issue(tmp_path: Path, form: str, image: dict[str, str]) -> None:
    folder = (lines if form == "jsonl" else tables)(tmp_path / "data", "good.png")
    if form == "jsonl":
        lines(tmp_path / "other", image)
        (folder / "corpus.jsonl").write_text((tmp_path / "other" / "corpus.jsonl").read_text())
    else:
        columns = {"id": ["a", "b"], "text": ["a", "b"], "image": [None, image]}
        pq.write_table(pa.table(columns), folder / "corpus" / "train.parquet")
    (issue,) = Checker(open_reader(folder)).run().issues.of("unreadable")
    assert issue.id == "b"
    with pytest.raises(ValueError, match=r"image.* must be .*path"):
        load_retrieval_dataset(folder, "train")


@pytest.mark.parametrize("as_texts", [False, True])
def test_a_data_set_on_the_hub_opens_no_local_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_texts: bool
) -> None:
    folder = tables(tmp_path / "data", "good.png", as_texts)
    monkeypatch.chdir(folder)

    def load(_path: str, config: str, split: str) -> datasets.Dataset:
        return datasets.Dataset(pq.read_table(folder / config / f"{split}.parquet"))

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda _path: ["corpus", "queries", "qrels"])
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda _path, _config: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ValueError, match=r"image 'good\.png' is a path, and a data set on the Hub has no folder"):
        load_retrieval_dataset("org/name", "train")
    assert load_retrieval_dataset("org/name", "train", image_root=folder).document_kinds == {"a": "image", "b": "image"}
