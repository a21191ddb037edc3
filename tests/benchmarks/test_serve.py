"""Tests of the load test of the service: every scenario on a live service, and the memory under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import serve
from benchmarks.common.http_load import SCENARIOS, Latencies
from tests.support.helpers import tiny_model

if TYPE_CHECKING:
    from pathlib import Path


def test_every_scenario_is_measured_on_a_live_service(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    command = ["--model", str(tmp_path / "model"), "--output", str(tmp_path)]
    assert serve.main([*command, "--seconds", "0.2"]) == 0
    page = (tmp_path / "serve.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:7]] for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == list(SCENARIOS)
    for row in rows:
        assert all(float(cell) > 0 for cell in row[1:])
        assert float(row[5]) >= float(row[4]), "p99 and p50"
    assert serve.main([*command, "--soak", "0.001"]) == 0
    assert "| 1 " in (tmp_path / "serve_soak.md").read_text(encoding="utf-8")


def test_latencies() -> None:
    found = Latencies([0.1 * number for number in range(1, 101)], inputs=200, elapsed=4.0)
    assert found.rate == 50
    assert found.quantile(0.5) == pytest.approx(5.05)


def test_a_missing_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="model not found"):
        serve.main(["--model", str(tmp_path / "none")])
