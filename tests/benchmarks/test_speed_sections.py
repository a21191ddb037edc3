"""Tests of the sections of the benchmark of speed that compare whole commands and ways to embed documents."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks import speed
from benchmarks.common import speed_documents, speed_start
from benchmarks.common.speed_documents import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SYSTEMS = {"sentence_transformers": {"sentence_transformers", "ciea"}, "per_document": {"ciea", "dev", "mining"}}


@pytest.mark.parametrize("section", sorted(SYSTEMS))
def test_every_system_embeds_every_kind_of_document(tmp_path: Path, section: str) -> None:
    options = ["--size", "tiny", "--documents", "6", "--batch", "4", "--rounds", "1", "--output", str(tmp_path)]
    assert speed.main(["--sections", section, *options]) == 0
    values = json.loads((tmp_path / "speed.json").read_text())[section]["values"]
    assert list(values) == list(KINDS)
    for systems in values.values():
        assert set(systems) == SYSTEMS[section]
        assert all(system["ms_per_document"] > 0 for system in systems.values())
    assert (tmp_path / "speed.md").read_text().count("| captioned images |") == len(SYSTEMS[section])


def test_systems_with_other_embeddings_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    build = speed_documents.build_model

    def other_each_time(size: str) -> object:
        model = build(size)
        for weight in model.parameters():
            weight.data += len(built) * torch.randn_like(weight)
        built.append(size)
        return model

    built: list[str] = []
    monkeypatch.setattr(speed_documents, "build_model", other_each_time)
    with pytest.raises(AssertionError):
        next(speed_documents.measure_sentence_transformers("tiny", 2, 2, 1))


def test_cold_start_searches_an_index_and_loads_the_same_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"transformers": 2.0, "ciea": 3.0}

    def check(command: Sequence[str]) -> tuple[float, float]:
        compile(command[2], "command", "exec")
        if "search" not in command:
            return 1.0, seconds["transformers"]
        from ciea_hf import cli

        assert cli.main(list(command[3:])) == 0
        return 1.0, seconds["ciea"]

    monkeypatch.setattr(speed_start, "timed_process", check)
    monkeypatch.setattr(speed_start, "DOCUMENTS", 5)
    options = ["--sections", "cold_start", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)]
    assert speed.main(options) == 0
    values = json.loads((tmp_path / "speed.json").read_text())["cold_start"]["values"]
    assert {system: value["processor_seconds"] for system, value in values.items()} == seconds
    (row,) = (line for line in (tmp_path / "speed.md").read_text().splitlines() if line.startswith("| ciea "))
    assert row.split()[-2] == "1.50"


def test_timed_process_counts_the_processor_time_of_the_command() -> None:
    wall, processor = speed_start.timed_process([sys.executable, "-c", "sum(range(10**6))"])
    assert 0 < processor < 10 * wall
