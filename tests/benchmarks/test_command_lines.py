"""Tests of the help texts and of errors that concern several benchmarks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import benchmarks
from benchmarks import complementarity, localisation, robustness
from benchmarks.common.files import model_titles

if TYPE_CHECKING:
    from types import ModuleType

MODULES = sorted(path.stem for path in Path(benchmarks.__path__[0]).glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_help_shows_the_description_and_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m benchmarks.{name}")
    assert str(module.__doc__).splitlines()[0] in text
    assert f"\n  python -m benchmarks.{name}" in text.partition("Examples:")[2]


def test_models_are_named_after_their_run() -> None:
    assert model_titles(["demo/runs/marvel/in_batch/best", "folder/ciea"]) == ["marvel", "ciea"]
    same = ["runs/0/align/best", "runs/0/hard/best"]
    assert model_titles(same) == same


@pytest.mark.parametrize("script", [robustness, complementarity, localisation])
def test_missing_models_raise_an_error_that_names_the_demo(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"model not found: .*; run `make demo`"):
        script.main([])
