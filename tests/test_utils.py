"""Tests of the helpers shared by the whole package."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ciea_hf.utils import limit_spinning, prefetch_map

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)


def test_threads_that_wait_fall_asleep_early() -> None:
    limit_spinning()
    assert int(os.environ["GOMP_SPINCOUNT"]) == 1000
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize("name", NAMES)
def test_how_threads_wait_remains_the_users_choice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "chosen")
    limit_spinning()
    assert {variable: os.environ[variable] for variable in NAMES if variable in os.environ} == {name: "chosen"}


@pytest.mark.parametrize(("module", "argument"), [("ciea_hf.cli", "--version"), ("ciea_hf.training.train", "--help")])
def test_the_programs_choose_before_torch_is_imported(module: str, argument: str) -> None:
    program = f"""
import os, sys
from {module} import main
try:
    main([{argument!r}])
except SystemExit:
    pass
sys.exit("torch" in sys.modules or os.environ.get("GOMP_SPINCOUNT") != "1000")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode()


@pytest.mark.parametrize(("workers", "ahead", "most"), [(2, None, 3), (2, 5, 6), (3, 1, 4), (0, 5, 1)])
def test_prefetch_map_keeps_the_order_and_its_lead(workers: int, ahead: int | None, most: int) -> None:
    started: list[int] = []

    def double(item: int) -> int:
        started.append(item)
        return 2 * item

    results = prefetch_map(double, range(20), workers, ahead)
    found = []
    for number, result in enumerate(results):
        assert len(started) <= number + most
        found.append(result)
    assert found == [2 * item for item in range(20)]
