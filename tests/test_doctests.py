"""Examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib.util
import pkgutil

import pytest

import ciea_hf

SKIPPED: tuple[str, ...] = ("ciea_hf.metrics.retrieval",)  # a module of `evaluate`, which loads it itself
if importlib.util.find_spec("gradio") is None:  # the page has an environment of its own
    SKIPPED += ("ciea_hf.app.launching", "ciea_hf.app.page")
MODULES = [
    found.name
    for found in pkgutil.walk_packages(ciea_hf.__path__, "ciea_hf.")
    if not found.name.startswith(SKIPPED) and "vision_tower" not in found.name
]


def examples_of(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, name, module=module)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples_of(name):
        report: list[str] = []
        assert runner.run(test, out=report.append).failed == 0, "".join(report)


def test_there_are_examples_to_run() -> None:
    examples = [example for name in MODULES for test in examples_of(name) for example in test.examples]
    assert sum(doctest.SKIP not in example.options for example in examples) >= 8
