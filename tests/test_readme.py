"""Every command and every Python block of the README runs, on a tiny model in place of the demonstration's.

`make` and `pip install` are what continuous integration itself does.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ciea_hf.cli import main
from tests.support import sample_datasets
from tests.support.helpers import picture, tiny_model

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines() if line.strip()]
SNIPPETS = [block for language, block in BLOCKS if language == "python"]
TRAINING = [command for command in COMMANDS if command.startswith("accelerate launch")]
CIEA = [command for command in COMMANDS if command.startswith("ciea ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it after `make demo`, the model a tiny random one."""
    folder = tmp_path_factory.mktemp("readme")
    tiny_model().save_pretrained(folder / "demo" / "ciea")
    sample_datasets.webqa(folder / "data" / "webqa")
    for name in ("scene.png", "other.png"):
        picture(size=(112, 112)).save(folder / "demo" / name)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("CIEA_HF_CACHE", str(place / "cache"))


def test_nothing_is_left_out() -> None:
    others = [command for command in COMMANDS if command not in TRAINING + CIEA]
    assert others == ['pip install ".[train,eval,search]"', "make demo", "make test"]
    assert len(CIEA) >= 8
    assert len(SNIPPETS) >= 2


def test_the_targets_of_make_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"make (\w+)`", README)) | {"demo", "test"} <= set(targets)


def test_commands_in_their_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in CIEA:
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
    for written in ("results.json", "ciea.run", "hits.png", "queries.npy", "look/model.safetensors"):
        assert (place / written).is_file(), written
    assert "MRR@10" in capsys.readouterr().out


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(SNIPPETS[number], f"README.md, Python block {number}", "exec"), {})  # noqa: S102 (our own README)
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", TRAINING)
def test_training(command: str, place: Path) -> None:
    words = shlex.split(command.replace("training/train.py", str(ROOT / "training" / "train.py")))
    assert words[:2] == ["accelerate", "launch"]
    short = ["--max-steps", "1", "--eval-steps", "1", "--batch-size", "8", "--eval-documents", "20"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"]
    completed = subprocess.run([*launch, *words[2:], *short], capture_output=True, text=True, check=False, cwd=place)
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert (place / "runs" / "demo" / "in_batch" / "best" / "model.safetensors").is_file()


def test_presets_and_stages_are_those_of_the_code() -> None:
    from ciea_hf.training.arguments import preset_names
    from ciea_hf.training.config import STAGES

    stages = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert stages == list(STAGES)
    assert all(f"`{name}`" in README for name in preset_names())
