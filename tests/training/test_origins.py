"""What a model card says a model derives from, as decided while it was trained."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import ModelCard

from ciea_hf.model_cards.card import render_model_card
from ciea_hf.training.config import TrainingConfig
from ciea_hf.training.run.origins import run_origins
from ciea_hf.training.run.stages import run_stages
from tests.support.toy_training import configured, reset_engine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


def origins(previous: Path | None = None, **values: Any) -> tuple[list[str], list[str]]:
    found = run_origins(TrainingConfig(**values), previous)
    return found["base_model"], found["datasets"]


@pytest.fixture
def relative(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and a data set whose paths look like ids on the Hub."""
    shutil.copytree(toy / "start", tmp_path / "work" / "a" / "b")
    shutil.copytree(toy / "data", tmp_path / "work" / "c" / "d")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def metadata(folder: Path) -> Any:
    return ModelCard(render_model_card(folder, repo_id="me/mine")).data


def test_local_paths_are_not_named_wherever_the_card_is_made(
    toy: Path, relative: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = relative / "run"
    run_stages(configured(toy, output, model="a/b", dataset="c/d", stage="align,in_batch", max_steps=1))
    monkeypatch.chdir(relative.parent)
    for stage in ("align", "in_batch"):
        record = json.loads((output / stage / "best" / "run.json").read_text())
        assert (record["base_model"], record["datasets"]) == ([], [])
        card = metadata(output / stage / "best")
        assert (card.base_model, card.datasets, card.license) == (None, None, "unknown")


def test_a_resumed_run_keeps_what_was_decided(toy: Path, relative: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = relative / "run"
    run_stages(configured(toy, output, model="a/b", max_steps=2, save_steps=1))
    (output / "in_batch" / "result.json").unlink()
    record = json.loads((output / "in_batch" / "run.json").read_text())
    (output / "in_batch" / "run.json").write_text(json.dumps({**record, "base_model": ["org/start"]}))
    reset_engine()
    run_stages(configured(toy, output, model="a/b", max_steps=3, resume=True))
    assert metadata(output / "in_batch" / "best").base_model == ["org/start"]


def test_repositories_are_named(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert origins(model="org/start", dataset="org/data") == (["org/start"], ["org/data"])
    assert origins(vision_model="org/v", text_model="org/t", dataset="demo") == (["org/v", "org/t"], [])
    assert origins(vision_model="demo", text_model="demo-bert") == ([], [])
    assert origins(vision_model="demo", text_model="org/t") == (["org/t"], [])
    assert origins(model="weights.pt", vision_model="org/v", text_model="org/t") == (["org/v", "org/t"], [])
    assert origins(model="/somewhere/else", vision_model="org/v", text_model="org/t", dataset="/x/y") == ([], [])


def test_a_local_model_hands_on_its_own_origins(toy: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        shutil.copytree(toy / "start", folder)
    (tmp_path / "a" / "run.json").write_text(json.dumps({"base_model": ["org/one", "org/two"]}))
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config["text_config"]["_name_or_path"] = "org/text"
    config["vision_config"]["_name_or_path"] = str(tmp_path)
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    assert origins(model=str(tmp_path / "a")) == (["org/one", "org/two"], [])
    assert origins(model=str(tmp_path / "b")) == (["org/text"], [])
    assert origins(previous=tmp_path / "a", model="org/other") == (["org/one", "org/two"], [])
