"""Training pushes its best model if configured, and continues if the Hub is unreachable."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.data import save_retrieval_dataset
from ciea_hf.training.config import TrainingConfig
from ciea_hf.training.run.publishing import publish
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import tiny_model
from tests.support.hub_state import Fault
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hub_server import MemoryHub


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    save_retrieval_dataset({"train": toy_dataset(), "dev": toy_dataset()}, tmp_path / "data", "# Toy")
    tiny_model().save_pretrained(tmp_path / "start")
    return TrainingConfig(
        model=str(tmp_path / "start"),
        dataset=str(tmp_path / "data"),
        output_dir=str(tmp_path / "run"),
        batch_size=2,
        max_steps=2,
        eval_steps=1,
        trackers=("none",),
        push_to_hub="org/trained",
        hub_private=True,
    )


def test_training_pushes_its_best_model(hub: MemoryHub, config: TrainingConfig, tmp_path: Path) -> None:
    run_stages(config)
    repository = hub.repositories["org/trained"]
    best = tmp_path / "run" / "in_batch" / "best"
    assert repository.private
    assert repository.files()["model.safetensors"] == (best / "model.safetensors").read_bytes()
    assert [message for _, message in repository.log.values()][1:] == ["Publish the best model of stage in_batch"]
    card = repository.files()["README.md"].decode()
    assert 'from_pretrained("org/trained"' in card
    assert "max_steps: 2" in card
    assert str(tmp_path) not in "".join(
        content.decode(errors="ignore")
        for name, content in repository.files().items()
        if name.endswith((".md", ".json"))
    )


def test_training_continues_if_the_hub_is_unreachable(
    hub: MemoryHub, config: TrainingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.append(Fault("/api/models", 503, times=10_000))
    with caplog.at_level(logging.WARNING, logger="ciea_hf"):
        results = run_stages(config)
    assert results["in_batch"]["step"] == 2
    best = tmp_path / "run" / "in_batch" / "best"
    assert (best / "model.safetensors").is_file()
    assert f"training continues; to push later: ciea push {best} org/trained --private" in caplog.text


@pytest.mark.parametrize("main", [True, False])
def test_only_the_main_process_pushes(
    hub: MemoryHub, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, main: bool
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("ciea_hf.training.run.stages.publish", lambda *arguments: calls.append(arguments))
    from ciea_hf.training.run.trainer import Trainer

    original = Trainer.run

    def run(self: Trainer, resume: bool) -> Any:
        progress = original(self, resume)
        monkeypatch.setattr(type(self.accelerator), "is_main_process", main)
        return progress

    monkeypatch.setattr(Trainer, "run", run)
    run_stages(config)
    assert len(calls) == main


def test_without_the_option_no_request_is_made(hub: MemoryHub, tmp_path: Path) -> None:
    assert not publish(tmp_path, TrainingConfig())
    assert hub.requests == []
