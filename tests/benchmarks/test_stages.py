"""Tests of the benchmark of training stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import stages
from ciea_hf.files import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest


def test_page_shows_means_over_seeds_and_gains_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str]] = []

    def launch(folder: Path, arguments: Sequence[str], preset: str) -> Path:
        assert preset == "demo_paper"
        launched.append(list(arguments))
        for number, stage in enumerate(stages.STAGES):
            result = {} if stage == "mine" else {"metrics": {"mrr@10": number / 10 + len(launched) / 100, "map": 1.0}}
            write_json(folder / stage / "result.json", result)
        return folder

    monkeypatch.setattr(stages, "launch_training", launch)
    command = ["--seeds", "2", "--steps", "5", "--output", str(tmp_path), "--work", str(tmp_path / "work")]
    assert stages.main([*command, "--", "--lambda", "0.1"]) == 0
    assert [arguments[3] for arguments in launched] == ["0", "1"]
    assert launched[0][4:] == ["--max-steps", "5", "--lambda", "0.1"]
    page = (tmp_path / stages.NAME).read_text(encoding="utf-8")
    assert "preset `demo` with `--max-steps 5 --lambda 0.1`, 2 seed(s)" in page
    cells = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")]
    assert [(stage.strip(), value.strip()) for stage, value in cells[2:]] == [
        ("warm_up", "0.015 ± 0.007"),
        ("align", "0.115 ± 0.007"),
        ("in_batch", "0.215 ± 0.007"),
        ("hard_negatives", "0.415 ± 0.007"),
    ]
    assert page.splitlines()[-2:] == [
        "- in_batch minus align, mrr@10 by seed: +0.1000, +0.1000",
        "- hard_negatives minus in_batch, mrr@10 by seed: +0.2000, +0.2000",
    ]
