"""Images that cannot be decoded, while a run trains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from ciea_hf.data import RetrievalDataset, save_retrieval_dataset
from ciea_hf.retrieval.documents import DocumentInput, DocumentView
from ciea_hf.training.run import guard
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.toy_training import (
    arguments_of,
    configured,
    read_log,
    save_training_data,
    training_data,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


@pytest.mark.parametrize("cache", [None, "auto"])
def test_broken_images_are_counted_named_and_left_out(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: str | None
) -> None:
    save_training_data(tmp_path / "data", images=12, broken=3)
    config = configured(
        toy, tmp_path / "run", dataset=str(tmp_path / "data"), max_steps=25, cache_vision_features=cache
    )
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        result = run_stages(config)["in_batch"]
    assert list(result["broken"]) == ["img-0", "img-1", "img-2"]
    left_out = [record.getMessage() for record in caplog.records if record.name.endswith("trainer")]
    assert sorted(message.split(" has a broken image:")[0] for message in left_out) == [
        f"document 'img-{i}'" for i in range(3)
    ]
    assert "3 documents have images that cannot be decoded" in caplog.text


@pytest.mark.parametrize("cache", [None, "auto"])
def test_a_broken_image_is_fatal_on_request(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: str | None
) -> None:
    save_training_data(tmp_path / "data", images=12, broken=3)
    config = configured(
        toy, tmp_path / "run", dataset=str(tmp_path / "data"), max_steps=8, on_broken_image="fail",
        cache_vision_features=cache,
    )  # fmt: skip
    assert main(arguments_of(config, tmp_path)) == 2
    assert "document 'img-" in capsys.readouterr().err


def test_a_batch_without_a_readable_example_has_no_loss(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_after(5, monkeypatch)  # one image to see that there are any, and the targets of the first batch
    result = run_stages(configured(toy, tmp_path, dev_split=None, max_steps=2))["in_batch"]
    first, second = (line["loss"] for line in read_log(tmp_path / "in_batch"))
    assert first > 0
    assert second == 0.0
    assert (result["step"], result["queries"]) == (2, 4)


def test_a_run_that_reads_no_example_fails(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_after(1, monkeypatch)
    assert main(arguments_of(configured(toy, tmp_path / "run", dev_split=None, max_steps=2), tmp_path)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no example of the 2 steps could be read, for example document" in error
    assert "the disk failed" in error
    assert not (tmp_path / "run" / "in_batch" / "best").exists()


def test_images_that_disappear_stop_a_run(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "EMPTY_STEPS", 3)
    fail_after(5, monkeypatch)
    config = configured(toy, tmp_path / "run", dev_split=None, max_steps=50)
    assert main(arguments_of(config, tmp_path)) == 2
    assert "no example of the last 3 steps up to step 4 could be read" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["skip", "caption"])
@pytest.mark.parametrize("stage", ["align", "in_batch", "mine"])
def test_a_corpus_without_a_readable_image_is_refused(
    tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str], policy: str, stage: str
) -> None:
    splits = {split: training_data(split, broken=24) for split in ("train", "dev")}
    kept = [row for row, name in enumerate(splits["train"].corpus_ids) if name != "img-bare"]
    broken = {split: without_documents(data, kept) for split, data in splits.items()}
    save_retrieval_dataset(broken, tmp_path / "broken", "# Broken")
    values = {"dataset": str(tmp_path / "broken"), "on_broken_image": policy, "stage": stage}
    assert main(arguments_of(configured(toy, tmp_path / "run", **values), tmp_path)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "none of 16 images of the corpus can be decoded, for example document 'img-" in error
    assert not (tmp_path / "run" / stage / "best").exists()
    assert not (tmp_path / "run" / stage / "result.json").exists()


def without_documents(data: RetrievalDataset, kept: list[int]) -> RetrievalDataset:
    ids = {data.corpus_ids[row] for row in kept}
    qrels = {query: {name: 1 for name in judged if name in ids} for query, judged in data.qrels.items()}
    qrels = {query: judged for query, judged in qrels.items() if judged}
    queries = data.queries.filter(lambda row: row["id"] in qrels)
    return RetrievalDataset(data.corpus.select(kept), queries, qrels, data.name, data.split)


def fail_after(reads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every read of a document after the first ones fail."""
    read, calls = DocumentView.read, [0]

    def failing(self: DocumentView, row: int, broken: dict[str, str] | None = None) -> DocumentInput | None:
        calls[0] += 1
        if calls[0] <= reads:
            return read(self, row, broken)
        self.report_broken(row, ValueError("the disk failed"), broken)
        return None

    monkeypatch.setattr(DocumentView, "read", failing)
