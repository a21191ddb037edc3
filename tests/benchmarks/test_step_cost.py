"""Tests of the benchmark of the cost of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import step_cost
from ciea_hf.files import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest


def test_recipes_alternate_and_their_ratio_is_within_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"demo_paper": [20.0, 40.0, 10.0], "demo": [22.0, 42.0, 30.0]}
    launched: list[str] = []

    def launch(folder: Path, arguments: Sequence[str], preset: str) -> Path:
        assert arguments[arguments.index("--max-steps") + 1] == "10"
        launched.append(preset)
        write_json(folder / "in_batch" / "result.json", {"seconds": seconds[preset][(len(launched) - 1) // 2]})
        return folder

    monkeypatch.setattr(step_cost, "launch_training", launch)
    assert step_cost.main(["--steps", "10", "--output", str(tmp_path)]) == 0
    assert launched == ["demo_paper", "demo"] * 3
    page = (tmp_path / step_cost.NAME).read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if line.startswith("| ")]
    assert cells[2:] == [["paper's recipe", "2.000", "1.00"], ["recipe of this package", "3.000", "1.10"]]
