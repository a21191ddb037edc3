"""What must not be lost: killed, preempted and failing runs, checkpoints, broken images."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from ciea_hf.training.loss.objective import Objective
from ciea_hf.training.run.checkpoint import Checkpoints, Progress
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.run.tracking import LossLog
from ciea_hf.training.run.trainer import Trainer
from ciea_hf.training.train import main
from tests.support.processes import drive, start
from tests.support.toy_training import (
    arguments_of,
    configured,
    read_log,
    reset_engine,
    same_weights,
    weights_of,
)

KILLS = 5
STEPS = 50


pytestmark = pytest.mark.usefixtures("fresh_engine")


def with_dropout(toy: Path, output: Path, **values: Any) -> list[str]:
    """A run whose random state matters: the model drops out."""
    start_folder = toy / "dropping"
    if not start_folder.exists():
        from tests.support.helpers import tiny_model

        tiny_model().save_pretrained(start_folder)
    settings = {"model": str(start_folder), "max_steps": STEPS, "save_steps": 2, "eval_steps": 5} | values
    return arguments_of(configured(toy, output, **settings), toy)


@pytest.fixture(scope="module")
def uninterrupted(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage folder of a run that nothing happens to."""
    reset_engine()
    output = tmp_path_factory.mktemp("uninterrupted")
    process = start(drive, with_dropout(toy, output), output / "log.txt")
    process.join(100)
    assert process.exitcode == 0, (output / "log.txt").read_text()
    return output / "in_batch"


def assert_same_run(folder: Path, expected: Path) -> None:
    assert (folder / "losses.jsonl").read_bytes() == (expected / "losses.jsonl").read_bytes()
    assert same_weights(folder / "best", expected / "best")
    last = f"step-{STEPS:08d}"
    assert same_weights(folder / "checkpoints" / last, expected / "checkpoints" / last)
    results = [json.loads((path / "result.json").read_text()) for path in (folder, expected)]
    for result in results:
        for name in ("seconds", "model"):
            del result[name]
    assert results[0] == results[1]


def steps_logged(folder: Path) -> int:
    path = folder / "in_batch" / "losses.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def last_checkpoint(folder: Path) -> int:
    steps = (folder / "in_batch" / "checkpoints").glob("step-*")
    return max((int(path.name.removeprefix("step-")) for path in steps), default=0)


def wait_for_step(folder: Path, step: int, since: int) -> None:
    """Wait until the log, which a resumed run cuts off first, holds a step."""
    log, deadline = folder / "in_batch" / "losses.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and log.stat().st_mtime_ns > since and steps_logged(folder) >= step:
            return
        time.sleep(0.003)
    raise TimeoutError((folder / "log.txt").read_text())


def test_a_run_killed_five_times_ends_as_if_nothing_had_happened(
    toy: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    arguments = [*with_dropout(toy, tmp_path), "--resume"]
    for _ in range(KILLS):
        step, since = last_checkpoint(tmp_path) + rng.randint(1, 4), time.time_ns()
        process = start(drive, arguments, tmp_path / "log.txt")
        wait_for_step(tmp_path, step, since)
        time.sleep(rng.uniform(0, 0.03))  # into a step, a checkpoint or an evaluation
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = start(drive, arguments, tmp_path / "log.txt")
    process.join(100)
    log = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 0, log
    assert "continues from step" in log
    assert_same_run(tmp_path / "in_batch", uninterrupted)
    assert not list((tmp_path / "in_batch").rglob("*.partial"))
    assert not list((tmp_path / "in_batch").glob(".best*"))


def test_sigterm_checkpoints_first(toy: Path, uninterrupted: Path, tmp_path: Path) -> None:
    arguments = [*with_dropout(toy, tmp_path, save_steps=1000), "--resume"]
    process = start(drive, arguments, tmp_path / "log.txt")
    wait_for_step(tmp_path, 2, 0)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, (tmp_path / "log.txt").read_text()
    (saved,) = (tmp_path / "in_batch" / "checkpoints").iterdir()
    assert f"step {int(saved.name.removeprefix('step-'))} is saved" in (tmp_path / "log.txt").read_text()
    assert steps_logged(tmp_path) == int(saved.name.removeprefix("step-"))  # not a step is lost
    process = start(drive, [*with_dropout(toy, tmp_path), "--resume"], tmp_path / "log.txt")
    process.join(100)
    assert process.exitcode == 0
    assert_same_run(tmp_path / "in_batch", uninterrupted)


def test_the_second_stage_of_a_killed_run_resumes_from_its_own_weights(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str, resume: bool = False) -> Any:
        return configured(toy, tmp_path / name, stage="align,in_batch", max_steps=3, save_steps=1, resume=resume)

    run_stages(config("whole"))
    reset_engine()
    step = Trainer._step

    def failing(self: Trainer, batches: Any) -> bool:
        if self.config.stage == "in_batch" and self.progress.step == 2:
            raise KeyboardInterrupt
        return step(self, batches)

    monkeypatch.setattr(Trainer, "_step", failing)
    with pytest.raises(KeyboardInterrupt):
        run_stages(config("stopped"))
    monkeypatch.setattr(Trainer, "_step", step)
    reset_engine()
    run_stages(config("stopped", resume=True))
    assert read_log(tmp_path / "stopped" / "in_batch") == read_log(tmp_path / "whole" / "in_batch")
    assert same_weights(tmp_path / "stopped" / "in_batch" / "best", tmp_path / "whole" / "in_batch" / "best")


def test_a_loss_that_is_no_number_stops_and_names_the_batch(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    total = Objective.total
    calls = [0]

    def sometimes(self: Objective, losses: Any) -> torch.Tensor:
        calls[0] += 1
        return total(self, losses) * (torch.nan if calls[0] == 3 else 1.0)

    monkeypatch.setattr(Objective, "total", sometimes)
    assert main(arguments_of(configured(toy, tmp_path / "run"), tmp_path)) == 2
    error = capsys.readouterr().err
    path = tmp_path / "run" / "in_batch" / "not-finite-0.json"
    assert "the loss of step 3 is not finite: contrastive" in error
    assert f"the ids of its batch are in {path}" in error
    content = json.loads(path.read_text())
    assert (content["step"], content["values"]["loss"]) == (3, "nan")
    assert len(content["queries"]) == 4
    assert all(name.startswith("q-") for name in content["queries"])
    assert len(content["documents"]) >= 3
    assert len(read_log(tmp_path / "run" / "in_batch")) == 2


def test_a_gradient_that_is_no_number_stops_before_the_weights_are_touched(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciea_hf.training.run.trainer.clip_gradients", lambda *_: float("inf"))
    steps: list[int] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: steps.append(1))
    with pytest.raises(FloatingPointError, match=r"step 1 is not finite: .*grad_norm inf"):
        run_stages(configured(toy, tmp_path / "run"))
    assert not steps


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed: No space left on device"),
    ],
    ids=["OSError", "safetensors", "torch"],
)
def test_a_full_disk_leaves_the_old_checkpoint_whole_and_says_so(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    save_state = Accelerator.save_state

    def filling(self: Accelerator, folder: str, **kwargs: Any) -> Any:
        if "00000004" in folder:
            Path(folder, "model.safetensors").write_bytes(b"a part of it")
            raise failure
        return save_state(self, folder, **kwargs)

    monkeypatch.setattr(Accelerator, "save_state", filling)
    config = configured(toy, tmp_path / "run", save_steps=2, max_steps=6)
    assert main(arguments_of(config, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "step-00000004 was not written: the disk is full; older checkpoints are unchanged" in error
    folder = tmp_path / "run" / "in_batch" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]
    monkeypatch.setattr(Accelerator, "save_state", save_state)
    reset_engine()
    assert main([*arguments_of(config, tmp_path), "--resume"]) == 0
    assert read_log(folder.parent)[-1]["step"] == 6


def test_an_error_that_is_no_disk_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "save_state", lambda folder: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match=r"inconsistent tensor size|size mismatch"):
        Checkpoints(tmp_path, 2, accelerator).save(Progress(step=1))
    assert not list(tmp_path.iterdir())


def test_checkpoints_are_whole_or_absent_and_few_are_kept(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    checkpoints = Checkpoints(tmp_path, 2, accelerator)
    assert checkpoints.load_last() is None
    for step in (2, 4, 10):
        torch.nn.init.constant_(model.weight, step)
        checkpoints.save(Progress(step=step, best_metric=0.5, history=[{"step": step, "mrr@10": 0.5}]))
    assert [path.name for path in checkpoints.all()] == ["step-00000004", "step-00000010"]
    partial = tmp_path / ".step-00000012.partial"
    partial.mkdir()
    (tmp_path / "step-00000013").mkdir()  # without its progress it is none
    torch.nn.init.constant_(model.weight, -1)
    loaded = checkpoints.load_last()
    assert loaded == Progress(step=10, best_metric=0.5, history=[{"step": 10, "mrr@10": 0.5}])
    assert model.weight.unique().tolist() == [10.0]
    checkpoints.save(Progress(step=12))
    assert not partial.exists()


def test_the_loss_log_forgets_what_no_checkpoint_knows(tmp_path: Path) -> None:
    log = LossLog(tmp_path / "losses.jsonl")
    for step in (1, 2, 3):
        log.append({"step": step})
    with log.path.open("a") as file:
        file.write('{"step": 2, "cut')
    log.rewind(2)
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n'
    log.rewind(0)
    assert log.path.read_text() == ""


def test_early_stopping_counts_evaluations_without_gain(toy: Path, tmp_path: Path) -> None:
    config = configured(toy, tmp_path, max_steps=50, eval_steps=1, early_stopping=3, learning_rate=1e-12)
    result = run_stages(config)["in_batch"]
    assert (result["step"], result["best_step"], len(result["history"])) == (4, 1, 4)
    assert (tmp_path / "in_batch" / "best" / "model.safetensors").is_file()


def test_the_best_model_is_that_of_the_best_evaluation(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.6, 0.6, 0.4])
    monkeypatch.setattr(
        "ciea_hf.training.run.dev_evaluator.DevEvaluator.__call__", lambda self, embedder: {"mrr@10": next(scores)}
    )
    result = run_stages(configured(toy, tmp_path, eval_steps=1, save_steps=1, keep_checkpoints=9))["in_batch"]
    assert (result["best_metric"], result["best_step"]) == (0.6, 2)
    folder = tmp_path / "in_batch"
    saved = {name.removeprefix("model."): tensor for name, tensor in _state(folder, 2).items()}
    best = weights_of(folder / "best")
    assert all(torch.equal(best[name], saved[name]) for name in best)
    assert json.loads((folder / "best" / "eval_results.json").read_text())["metrics"]["mrr@10"] == 0.6


def _state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return weights_of(folder / "checkpoints" / f"step-{step:08d}")
