"""`ciea index`, `ciea search` and others with an index at a URL."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from ciea_hf.app.systems import index_folder
from ciea_hf.cli import main
from ciea_hf.data import save_retrieval_dataset
from ciea_hf.retrieval import encode_shards
from ciea_hf.retrieval.location import local_path
from ciea_hf.serve.searching import open_retriever
from tests.support.commands import fails
from tests.support.remote_folders import clear_memory, remote_content
from tests.support.toy_retrieval import ToyEncoder, dataset_of, folder_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "memory://bucket/data.index"

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    clear_memory()
    yield
    clear_memory()


def test_commands_take_a_url(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_retrieval_dataset({"test": dataset_of({"a": "a red cat", "b": "the sea", "c": "tea"})}, old, "# Old")
    save_retrieval_dataset({"test": dataset_of({"a": "a red cat", "b": "a house", "d": "bread"})}, new, "# New")
    local = str(tmp_path / "local")
    for output in (URL, local):
        assert main(["index", model, str(old), "--output", output, "--shard-size", "1", "--shard", "1/2"]) == 0
        assert capsys.readouterr().out == f"{output}: 1 shards are missing\n"
        assert main(["index", model, str(old), "--output", output, "--shard-size", "1"]) == 0
        assert capsys.readouterr().out == f"{output}: 3 documents, complete\n"
        assert main(["index", model, str(new), "--output", output, "--shard-size", "1", "--append", "--prune"]) == 0
        assert capsys.readouterr().out == f"1 documents removed\n{output}: 3 documents, complete\n"
    assert remote_content(URL) == folder_content(tmp_path / "local")
    assert main(["index", "--verify", URL]) == 0
    assert capsys.readouterr().out == f"{URL}: all files match their checksums\n"
    assert main(["index", "--output", URL, "--export", str(tmp_path / "vectors.parquet")]) == 0
    assert sorted(pq.read_table(tmp_path / "vectors.parquet")["id"].to_pylist()) == ["a", "b", "d"]
    printed = []
    for output in (URL, local):
        capsys.readouterr()
        assert main(["search", model, output, "a red cat", "--hybrid"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert re.search(r"^ +1 .* a +a red cat$", printed[0], flags=re.MULTILINE)
    assert list(local_path(URL).glob("bm25-*"))
    assert index_folder(URL) == local_path(URL)


def test_the_service_opens_a_url() -> None:
    encode_shards(ToyEncoder(), dataset_of({"a": "red", "b": "tea"}), URL)
    (hits,) = open_retriever(ToyEncoder(), URL).search(["tea"], 1)
    assert [hit.id for hit in hits] == ["b"]


def test_errors_are_one_line_that_names_the_url(model: str, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{URL} is not an index" in fails(capsys, "search", model, URL, "a red cat")
    assert f"{URL} is not an index: manifest.json not found" in fails(capsys, "index", "--verify", URL)
    assert f"{URL} is not an index" in fails(capsys, "serve", model, "--index", URL, "--port", "0")
    for command in (["index", "no-model", dataset, "--output"], ["index", "--verify"], ["search", model]):
        line = fails(capsys, *command, "nowhere://x", *(["a cat"] if command[0] == "search" else []))
        assert line.startswith("ciea: error: nowhere://x")
        assert "Protocol not known: nowhere" in line


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_the_library_of_a_protocol_is_named(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["index", "no-model", dataset, "--output"], ["index", "--verify"]):
        assert fails(capsys, *command, "s3://bucket/x") == "ciea: error: s3://bucket/x: Install s3fs to access S3\n"
