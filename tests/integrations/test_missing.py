"""Without its framework, an integration says how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "package"),
    [("langchain", "langchain_core"), ("llama_index", "llama_index"), ("haystack", "haystack")],
)
def test_a_missing_framework_is_named_with_its_extra(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"ciea_hf.integrations.{name}", raising=False)
    extra = name.replace("_", "-")
    with pytest.raises(ImportError, match=rf'required but not installed: pip install "ciea-hf\[{extra}\]"'):
        importlib.import_module(f"ciea_hf.integrations.{name}")
