"""Commands that must fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciea_hf.cli import main

if TYPE_CHECKING:
    import pytest


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail as a user's error does: status 2, one line on stderr. Returns the line."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ciea: error: ")
    assert captured.err.count("\n") == 1
    return captured.err
