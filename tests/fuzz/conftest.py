"""A summary of the outcomes of all fuzz targets, for runs of more cases than the tests' few."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.outcomes import Tally


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lift the time limit of the tests where the number of cases was chosen."""
    for item in items if "CIEA_FUZZ_CASES" in os.environ else []:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the counts by target where the number of cases was chosen, as `make fuzz` does."""
    if "CIEA_FUZZ_CASES" not in os.environ or not Tally.of_tests:
        return
    terminalreporter.section("outcomes of the fuzz targets")
    for test, counts in Tally.of_tests.items():
        shown = ", ".join(f"{counts[kind]} {kind}" for kind in ("accepted", "clear", "unclear"))
        terminalreporter.write_line(f"{test}: {shown}")
