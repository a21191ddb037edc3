"""`ciea data`: exit status, output, and what convert writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import datasets
import pytest

from ciea_hf.cli import main
from ciea_hf.data import load_retrieval_dataset
from tests.data.test_check import set_image, with_faults
from tests.data.test_readers import plain
from tests.support import sample_datasets
from tests.support.sample_datasets import COLOURS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def test_the_command_reports_whether_training_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, (bad, said) = sample_datasets.webqa(tmp_path / "good"), with_faults(tmp_path / "bad")
    assert main(["data", "check", str(good)]) == 0
    assert capsys.readouterr().out.endswith(
        "\ntraining can run with `--on-broken-image skip` or `caption`: 1 image cannot be read\n"
    )
    assert (
        main(["data", "check", str(bad), "--fix", str(tmp_path / "clean"), "--output", str(tmp_path / "a.json")]) == 1
    )
    out = capsys.readouterr().out
    assert "all_docs.json:4: 'd5bc8': the document already exists (line 1)" in out
    assert "training cannot run: offsets that do not point at their line: 2" in out
    assert f"written without the issues: {tmp_path / 'clean'} (corpus 7, train 3, dev 1, test 2)" in out
    written = json.loads((tmp_path / "a.json").read_text())
    assert len(written["issues"]) == len(said)
    assert {"kind", "level", "file", "line", "id", "message"} == set(written["issues"][0])
    assert main(["data", "check", str(tmp_path / "clean")]) == 0
    assert main(["data", "check", str(good), "--splits", "test"]) == 1
    assert "split 'train' not found" in capsys.readouterr().out
    assert main(["data", "check", str(good), "--splits", "gold"]) == 2
    assert main(["data", "check", str(good), "--fix", str(tmp_path / "clean")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["data", "check", str(bad), "--limit", "1"]) == 1
    assert "and 2 more" in capsys.readouterr().out


@pytest.mark.parametrize("form", sample_datasets.SAMPLES)
def test_convert_writes_what_is_loaded(tmp_path: Path, form: str) -> None:
    folder = sample_datasets.SAMPLES[form](tmp_path / "data")
    assert main(["data", "convert", str(folder), "--output", str(tmp_path / "own"), "--splits", "train", "dev"]) == 0
    for split in ("train", "dev"):
        own, data = (load_retrieval_dataset(path, split) for path in (tmp_path / "own", folder))
        assert own.corpus_ids == data.corpus_ids
        assert own.corpus.select_columns(["text", "modality"])[:] == data.corpus.select_columns(["text", "modality"])[:]
        assert own.queries[:] == data.queries.select_columns(["id", "text"])[:]
        assert own.qrels == data.qrels
    row = next(row for row, name in enumerate(own.corpus_ids) if plain(name) == "30000001")
    assert own.corpus[row]["image"].getpixel((0, 0)) == COLOURS["30000001"]
    assert datasets.load_dataset(str(tmp_path / "own"), "queries", split="dev")["id"][:] == own.queries["id"][:]


def test_convert_names_the_issue_that_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = with_faults(tmp_path / "data")
    assert main(["data", "convert", str(folder), "--output", str(tmp_path / "own")]) == 2
    assert "all_docs.json:4: 'd5bc8': the document already exists (line 1)" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()
    folder = sample_datasets.webqa(tmp_path / "webqa")
    set_image(folder, "30000001", b"####")
    assert main(["data", "convert", str(folder), "--output", str(tmp_path / "own")]) == 2
    assert "the image of document '30000001' cannot be read" in capsys.readouterr().err
