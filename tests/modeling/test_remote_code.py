"""The saved folder where the package is not installed: its own code, in a process that cannot import `ciea_hf`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from ciea_hf import CIEAConfig, CIEAModel, CIEAProcessor
from tests.support.helpers import TEXT_FAMILIES, mixed_batch, mixed_inputs, tiny_model

CODE = sorted((Path(__file__).parents[2] / "modeling").glob("*_ciea.py"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/`, and `again/` with the copies and embeddings that the other process saved."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for family in TEXT_FAMILIES:
        tiny_model(family).save_pretrained(folder / "models" / family)
    inputs = []
    for number, value in enumerate(mixed_inputs()):
        document = value if isinstance(value, dict) else {"text": None, "image": value}
        if isinstance(value, str):
            document = {"text": value, "image": None}
        path = folder / f"{number}.png"
        if document["image"] is not None:
            document["image"].save(path)
        inputs.append({"text": document["text"], "image": str(path) if path.exists() else None})
    (folder / "again").mkdir()
    script = Path(__file__).parents[1] / "support" / "without_package.py"
    done = subprocess.run(
        [sys.executable, "-I", script, folder / "models", json.dumps(inputs), folder / "again"],
        env={**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_the_same_embeddings_bit_by_bit(text: str, elsewhere: Path) -> None:
    model = tiny_model(text)
    loaded = np.load(elsewhere / "again" / f"{text}.npz")
    with torch.no_grad():
        output = model(**mixed_batch(model), image_only_from="extracted")
    np.testing.assert_allclose(loaded["embeddings"], output.embeddings, atol=1e-5)
    np.testing.assert_allclose(loaded["image_embeddings"], output.image_embeddings, atol=1e-5)
    np.testing.assert_allclose(loaded["encoded"], model.encode(mixed_inputs()), atol=1e-5)


@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_what_is_saved_there_is_complete(text: str, elsewhere: Path) -> None:
    before, after = elsewhere / "models" / text, elsewhere / "again" / text
    assert {path.name for path in after.iterdir()} == {path.name for path in before.iterdir()}
    for path in CODE:
        assert path.read_bytes() == (before / path.name).read_bytes() == (after / path.name).read_bytes()
    for name in ("processor_config.json", "modules.json", "sentence_bert_config.json"):
        assert json.loads((after / name).read_text()) == json.loads((before / name).read_text())
    # loading fills in the towers' number type, which was unset
    config = (after / "config.json").read_text().replace('"dtype": "float32"', '"dtype": null')
    assert config == (before / "config.json").read_text().replace('"dtype": "float32"', '"dtype": null')
    assert set(json.loads((after / "config.json").read_text())["auto_map"]) == {"AutoConfig", "AutoModel"}
    assert "AutoProcessor" in json.loads((after / "processor_config.json").read_text())["auto_map"]


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}, {"trust_remote_code": False}])
def test_with_the_package_its_own_classes_are_taken(trust: dict[str, Any], elsewhere: Path) -> None:
    folder = elsewhere / "again" / "t5"
    assert type(AutoConfig.from_pretrained(folder, **trust)) is CIEAConfig
    assert type(AutoProcessor.from_pretrained(folder, **trust)) is CIEAProcessor
    model = AutoModel.from_pretrained(folder, **trust)
    assert type(model) is CIEAModel
    np.testing.assert_allclose(model.encode(mixed_inputs()), tiny_model("t5").encode(mixed_inputs()), atol=1e-5)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_the_code_can_travel(path: Path) -> None:
    """Only relative imports of files that travel along, and packages that every installation has."""
    names = {file.stem for file in CODE}
    assert set(get_relative_imports(path)) <= names
    assert "from . import" not in path.read_text()
    assert "ciea_hf" not in path.read_text()
    foreign = set(get_imports(path)) - set(sys.stdlib_module_names)
    assert foreign <= {"torch", "numpy", "PIL", "transformers"}
