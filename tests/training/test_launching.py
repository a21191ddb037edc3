"""Number of processes: every process that was started trains its share, and the run names what it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from ciea_hf.training.run.accelerator import create_accelerator, launched_processes
from ciea_hf.training.run.stages import run_stages
from tests.support.processes import free_port
from tests.support.toy_training import arguments_of, configured, read_log, weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [
    pytest.mark.usefixtures("fresh_engine"),
    pytest.mark.skipif(torch.accelerator.is_available(), reason="of machines without an accelerator"),
]

SCRIPT = Path(__file__).parents[2] / "training" / "train.py"


def launch(command: Sequence[str], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "RANK"))}
    return subprocess.run(
        [sys.executable, "-m", *command, str(SCRIPT), *arguments],
        env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_two_processes_of_torchrun_train_what_one_does(toy: Path, tmp_path: Path) -> None:
    run_stages(configured(toy, tmp_path / "one", max_steps=2))
    torchrun = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    found = launch(torchrun, arguments_of(configured(toy, tmp_path / "two", max_steps=2), toy))
    assert found.returncode == 0, found.stderr
    assert "training in 2 process(es), on cpu" in found.stderr
    one, two = tmp_path / "one" / "in_batch", tmp_path / "two" / "in_batch"
    for left, right in zip(read_log(two), read_log(one), strict=True):
        assert left == pytest.approx(right, abs=1e-4, rel=1e-4)
    left_weights, right_weights = weights_of(two / "best"), weights_of(one / "best")
    assert all((left_weights[name] - tensor).abs().max() < 1e-5 for name, tensor in right_weights.items())


def test_accelerate_without_a_gpu_starts_one_process_and_the_run_says_so(toy: Path, tmp_path: Path) -> None:
    accelerate = ["accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1",
                  "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    found = launch(accelerate, arguments_of(configured(toy, tmp_path / "run", max_steps=1), toy))
    assert found.returncode == 0, found.stderr
    assert "training in 1 process(es), on cpu" in found.stderr
    assert "was asked for several processes and started one, because there is no second GPU" in found.stderr


def test_processes_that_would_each_train_alone_are_refused(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciea_hf.training.run.accelerator.launched_processes", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    with pytest.raises(ValueError, match="2 processes were started, but Accelerate uses 1"):
        create_accelerator(configured(toy, tmp_path))


def test_processes_are_counted_by_the_variables_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched_processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")  # the number of machines, in some clusters
    assert launched_processes() == 1
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched_processes() == 4
