"""Damaged files of a run: checkpoints, the best model, records; and two trainings in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from ciea_hf.files import _host
from ciea_hf.training.run.checksums import CHECKSUMS, find_damage, write_checksums
from ciea_hf.training.run.lock import LOCK
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.helpers import tiny_model
from tests.support.processes import drive, start
from tests.support.toy_training import arguments_of, configured, read_log, reset_engine, same_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from ciea_hf.training.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("fresh_engine")

FILES = ("random_states_0.pkl", "optimizer.bin", "model.safetensors", "progress.json", CHECKSUMS)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = (truncate, empty, flip, remove)


def config_of(toy: Path, output: Path, **values: Any) -> TrainingConfig:
    """A run whose random state matters, with checkpoints at every second step."""
    start_folder = toy / "dropping"
    if not start_folder.exists():
        tiny_model().save_pretrained(start_folder)
    settings = {"model": str(start_folder), "max_steps": 5, "keep_checkpoints": 2} | values
    return configured(toy, output, **settings)


@pytest.fixture(scope="module")
def finished(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run with checkpoints of steps 2 and 4, and a best model."""
    reset_engine()
    output = tmp_path_factory.mktemp("finished")
    run_stages(config_of(toy, output))
    return output


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """Output folder of the same run, stopped before its end."""
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    (output / "in_batch" / "result.json").unlink()
    return output


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    toy: Path,
    finished: Path,
    stopped: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    checkpoints = stopped / "in_batch" / "checkpoints"
    damage(checkpoints / "step-00000004" / name)
    with caplog.at_level("INFO", "ciea_hf"):
        run_stages(config_of(toy, stopped, resume=True))
    assert f"checkpoint {checkpoints / 'step-00000004'} is damaged: {name}" in caplog.text
    assert "stage in_batch continues from step 2" in caplog.text
    assert read_log(stopped / "in_batch") == read_log(finished / "in_batch")
    for folder in ("best", "checkpoints/step-00000004"):
        assert same_weights(stopped / "in_batch" / folder, finished / "in_batch" / folder)
    assert find_damage(checkpoints / "step-00000004") is None


def test_a_run_without_an_intact_checkpoint_is_refused(
    toy: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = sorted((stopped / "in_batch" / "checkpoints").iterdir())
    truncate(folders[0] / "optimizer.bin")
    remove(folders[1] / "random_states_0.pkl")
    before = read_log(stopped / "in_batch")
    assert main([*arguments_of(config_of(toy, stopped), toy), "--resume"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"checkpoint {folders[0]} is damaged: optimizer.bin was changed or truncated" in error
    assert f"checkpoint {folders[1]} is damaged: random_states_0.pkl is missing" in error
    assert f"delete {stopped / 'in_batch'} to start the stage again" in error
    assert read_log(stopped / "in_batch") == before
    assert not (stopped / "in_batch" / "result.json").exists()


def test_an_empty_checkpoint_folder_is_a_damaged_one(
    toy: Path, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stopped / "in_batch" / "checkpoints" / "step-00000009"
    folder.mkdir()
    run_stages(config_of(toy, stopped, resume=True, save_steps=1))
    assert f"checkpoint {folder} is damaged: {CHECKSUMS} is missing" in caplog.text
    assert not folder.exists()  # removed with the next checkpoint


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", [truncate, flip, remove])
def test_the_next_stage_does_not_start_from_a_damaged_model(
    toy: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Any
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    best = tmp_path / "run" / "in_batch" / "best"
    damage(best / name)
    config = config_of(toy, tmp_path / "run", stage="in_batch,mine", resume=True)
    assert main(arguments_of(config, toy)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the best model {best} is damaged: {name}" in error
    assert not (tmp_path / "run" / "mine" / "result.json").exists()


def test_a_resumed_run_needs_its_best_model(toy: Path, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(stopped / "in_batch" / "best" / "model.safetensors")
    assert main([*arguments_of(config_of(toy, stopped), toy), "--resume"]) == 2
    assert "is damaged: model.safetensors was changed or truncated" in capsys.readouterr().err


def test_a_card_edited_by_hand_is_no_damage(toy: Path, stopped: Path) -> None:
    (stopped / "in_batch" / "best" / "README.md").write_text("# Mine")
    (stopped / "in_batch" / "best" / "eval_results.json").unlink()
    assert run_stages(config_of(toy, stopped, resume=True))["in_batch"]["step"] == 5


def test_a_run_killed_while_it_replaced_its_best_model_finds_it_again(toy: Path, finished: Path, stopped: Path) -> None:
    stage = stopped / "in_batch"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (stage / "best").replace(stage / f".best.{_host()}-{int(dead.stdout)}.0123abcd.old")
    run_stages(config_of(toy, stopped, resume=True))
    assert same_weights(stage / "best", finished / "in_batch" / "best")
    assert not list(stage.glob(".best*"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", "null", "[" * 100_000, "\udcff"])
@pytest.mark.parametrize("name", ["run.json", "result.json", "losses.jsonl"])
def test_damaged_records_are_named(
    toy: Path, stopped: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    path = stopped / "in_batch" / name
    path.write_bytes(content.encode(errors="surrogateescape") + b"\n")
    status = main([*arguments_of(config_of(toy, stopped), toy), "--resume"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert f"{path} is damaged" in error or f"{path}, line 1" in error
    assert len(error) < 600


def test_checksums_find_every_single_change(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)) * 10)
    (folder / "inside" / "b.bin").write_bytes(b"b")
    write_checksums(folder, ignored=["notes.txt"])
    (folder / "notes.txt").write_text("may change")
    assert find_damage(folder, ["a.bin", "inside/b.bin"]) is None
    assert find_damage(folder, ["c.bin"]) == f"{CHECKSUMS} is incomplete"
    for name in ("a.bin", "inside/b.bin"):
        content = (folder / name).read_bytes()
        flip(folder / name)
        assert find_damage(folder) == f"{name} was changed or truncated"
        (folder / name).write_bytes(content + b" ")
        assert find_damage(folder) == f"{name} was changed or truncated"
        (folder / name).unlink()
        assert find_damage(folder) == f"{name} is missing"
        (folder / name).mkdir()
        assert str(find_damage(folder)).startswith(f"{name} cannot be read: ")
        (folder / name).rmdir()
        (folder / name).write_bytes(content)
    assert find_damage(folder) is None


def test_checkpoints_reach_the_disk_before_their_name(toy: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Every file is flushed under its hidden name, then the folder that names it."""
    flushed: list[str] = []
    fsync = os.fsync

    def watching(handle: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    run_stages(configured(toy, tmp_path, max_steps=2, dev_split=None))
    checkpoints = tmp_path / "in_batch" / "checkpoints"
    names = {path.name for path in (checkpoints / "step-00000002").iterdir()}
    partial = str(checkpoints / ".step-00000002.partial")
    first = [path for path in flushed if path.startswith(partial)]
    assert {path.rpartition("/")[2] for path in first} >= {*names, ".step-00000002.partial"}
    assert flushed.index(str(checkpoints)) > max(map(flushed.index, first))


# --- two trainings


def test_a_second_training_in_the_same_folder_is_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    with FileLock(output / LOCK):
        assert main(arguments_of(configured(toy, output), toy)) == 2
        assert f"another training is writing to {output}" in capsys.readouterr().err
        assert [path.name for path in output.iterdir()] == [LOCK]
    reset_engine()
    assert main(arguments_of(configured(toy, output), toy)) == 0


def test_of_two_trainings_started_together_one_trains(toy: Path, tmp_path: Path) -> None:
    arguments = arguments_of(configured(toy, tmp_path / "run", max_steps=30), toy)
    processes = [start(drive, arguments, tmp_path / f"{i}.log") for i in range(2)]
    for process in processes:
        process.join(100)
    logs = [(tmp_path / f"{i}.log").read_text() for i in range(2)]
    assert sorted(process.exitcode or 0 for process in processes) == [0, 2], logs
    assert sum("another training is writing to" in log or "already contains a run" in log for log in logs) == 1
    assert len(read_log(tmp_path / "run" / "in_batch")) == 30
