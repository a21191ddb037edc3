"""The demonstration: its launch of training, its table, its example queries and its output folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ciea_hf.cli import build_parser
from ciea_hf.demo import run as demo
from ciea_hf.demo.launching import launch_training
from ciea_hf.demo.report import METRICS, OUTCOMES, Row, demo_table, example_queries
from ciea_hf.retrieval import load_corpus
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence


def record_launches(monkeypatch: pytest.MonkeyPatch, status: int) -> list[list[str]]:
    """Replace subprocesses by a list of their commands, each of which exits with the status."""
    commands: list[list[str]] = []

    def launch(command: Sequence[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert not check
        commands.append(list(command))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr("ciea_hf.demo.launching.subprocess.run", launch)
    return commands


def test_training_is_launched_with_the_preset_and_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = record_launches(monkeypatch, status=0)
    assert launch_training(tmp_path, ("--seed", "3")) == tmp_path
    (command,) = commands
    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    training = command[command.index("ciea_hf.training.train") + 1 :]
    assert training == ["--preset", "demo", "--output-dir", str(tmp_path), "--resume", "--seed", "3"]


def test_a_failed_training_ends_the_demonstration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record_launches(monkeypatch, status=7)
    with pytest.raises(SystemExit) as caught:
        launch_training(tmp_path, ())
    assert caught.value.code == 7


def test_a_folder_with_other_settings_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = record_launches(monkeypatch, status=0)
    (tmp_path / demo.SETTINGS_FILE).write_text('{"steps": 2, "seed": 0}')
    with pytest.raises(SystemExit, match=r"was made with another seed: choose another folder"):
        demo.main(["--output", str(tmp_path), "--steps", "2", "--seed", "1"])
    assert commands == []


def test_systems_are_trained_from_one_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = record_launches(monkeypatch, status=0)
    for number, system in enumerate(demo.SYSTEMS):
        folder = tmp_path / system.name / "in_batch"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(f'{{"seconds": {number + 0.5}}}')
    seconds = demo._train_systems(tmp_path, steps=9, seed=2)
    assert seconds == {"caption_only": 0.5, "marvel": 1.5, "ciea": 2.5}
    start, *trainings = commands
    assert start[-6:] == ["--stage", "warm_up,align", "--use-extractor", "false", "--seed", "2"]
    for system, command in zip(demo.SYSTEMS, trainings, strict=True):
        arguments = command[command.index("--resume") + 1 :]
        stage = "warm_up" if system.name == "caption_only" else "align"
        common = ["--stage", "in_batch", "--seed", "2", "--max-steps", "9"]
        assert arguments == [*common, "--model", str(tmp_path / "start" / stage / "best"), *system.arguments]


def test_the_table_has_a_row_per_system() -> None:
    values = {name: (number + 1) / 10 for number, name in enumerate(METRICS)}
    table = demo_table([Row("CIEA", {"image": values, "text": dict.fromkeys(METRICS, 1.0)}, 61.4, {"own image": 0.5})])
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert head[:2] == ["system", "MRR@10 image"]
    assert head[-5:] == ["Recall@10 text", "own image", "image + text", "same caption", "training s"]
    assert row == ["CIEA", "0.100", "0.200", "0.300", "1.000", "1.000", "1.000", "0.500", "-", "-", "61"]


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ({"img-red": 3.0, "img-blue": 2.0}, OUTCOMES[0]),
        ({"img-red": 2.0, "img-blue": 3.0}, OUTCOMES[1]),
        ({"img-red": 1.0, "img-blue": 3.0, "txt-tea": 2.0}, OUTCOMES[2]),  # below the two hits that are shown
        ({}, OUTCOMES[2]),
    ],
)
def test_examples_are_image_queries_by_outcome(scores: dict[str, float], outcome: str) -> None:
    run = {"q-pic": scores, "q-txt": {"txt-tea": 1.0}}
    assert example_queries(toy_dataset(), run, shown=2) == {outcome: "q-pic"}


def test_the_page_opens_over_both_models(model: str, dataset: str, tmp_path: Path) -> None:
    command = demo._index_for_page(tmp_path, {"ciea": Path(model), "marvel": Path(model)}, dataset)
    parsed = build_parser().parse_args(command.split()[1:])
    assert (parsed.model, parsed.compare[0]) == (model, model)
    for index in (parsed.index, parsed.compare[1]):
        assert len(load_corpus(index)) == 6
