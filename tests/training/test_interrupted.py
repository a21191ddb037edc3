"""Runs of several stages that stop halfway, and checkpoints that find no room on the disk."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from ciea_hf.training.arguments import config_from_arguments
from ciea_hf.training.run.checkpoint import Checkpoints, Progress
from ciea_hf.training.run.stages import run_stages
from tests.support.toy_training import save_backbones, save_training_data

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 4


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("toy")
    options = f"--stage warm_up,in_batch --batch-size 6 --max-steps {STEPS} --learning-rate 1e-3 --save-steps 1"
    options += f" --keep-checkpoints {STEPS} --log-steps 1 --eval-steps 2 --mixed-precision no --trackers none"
    backbones = save_backbones(folder)
    return [*options.split(), "--dataset", str(save_training_data(folder / "data")), *backbones]


def train(arguments: list[str], output: Path) -> Path:
    run_stages(config_from_arguments([*arguments, "--output-dir", str(output)]))
    return output / "in_batch"


def test_a_run_stopped_in_its_second_stage_continues_as_if_nothing_had_happened(
    arguments: list[str], tmp_path: Path
) -> None:
    whole = train(arguments, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    stopped = tmp_path / "stopped" / "in_batch"
    (stopped / "result.json").unlink()
    shutil.rmtree(stopped / "best")
    for path in sorted((stopped / "checkpoints").iterdir())[1:]:  # stopped after its first step
        shutil.rmtree(path)

    assert train([*arguments, "--resume"], tmp_path / "stopped") == stopped
    assert (stopped / "losses.jsonl").read_text() == (whole / "losses.jsonl").read_text()
    assert len((whole / "losses.jsonl").read_text().splitlines()) == STEPS
    expected, found = (load_file(folder / "best" / "model.safetensors") for folder in (whole, stopped))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert json.loads((stopped / "result.json").read_text())["step"] == STEPS


def test_a_checkpoint_holds_the_model_of_its_own_stage_alone(arguments: list[str], tmp_path: Path) -> None:
    folder = train(arguments, tmp_path / "run") / "checkpoints"
    assert [path.name for path in sorted(folder.glob("*1/*.safetensors"))] == ["model.safetensors"]


def full_disk(folder: str) -> None:
    torch.save(torch.zeros(1_000_000), "/dev/full")


class Processes(SimpleNamespace):
    """The only process there is, in the place of an accelerator."""

    is_main_process = True

    def wait_for_everyone(self) -> None:
        pass


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_a_full_disk_is_named_and_leaves_older_checkpoints_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    accelerator: Any = Processes(save_state=lambda folder: None)
    checkpoints = Checkpoints(tmp_path, keep=2, accelerator=accelerator)
    first = checkpoints.save(Progress(step=1))
    accelerator.save_state = full_disk
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    if free:  # another error than that of a full disk stays what it is
        with pytest.raises(RuntimeError, match="inline_container"):
            checkpoints.save(Progress(step=2))
    else:
        with pytest.raises(
            OSError, match=r"step-00000002 was not written: the disk is full; older checkpoints are unchanged"
        ):
            checkpoints.save(Progress(step=2))
    assert list(tmp_path.iterdir()) == [first]
