"""Mutated files of model folders: the command runs, or ends with one line; embeddings are finite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.cli import main
from tests.fuzz.outcomes import Tally, cases, mutated_bytes, mutated_json
from tests.support.helpers import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_mutated_model_folders_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = tmp_path / "model", tmp_path / "a.npy"
    tiny_model().save_pretrained(folder)
    names = [file.name for file in sorted(folder.iterdir()) if file.suffix in (".json", ".safetensors")]
    tally = Tally()
    for seed, numbers in cases(12):
        name = numbers.choice(names)
        original = (folder / name).read_bytes()
        if name.endswith(".json"):
            (folder / name).write_text(json.dumps(mutated_json(json.loads(original), numbers)))
        else:
            (folder / name).write_bytes(mutated_bytes(original, numbers))
        try:
            status: int | str = main(["encode", str(folder), "--text", "a cat", "--output", str(output)])
        except Exception as error:
            status = repr(error)
        printed = capsys.readouterr().err.strip().splitlines()
        if status == 0:
            found = "accepted" if np.isfinite(np.load(output)).all() else "unclear"
        else:
            found = "clear" if status == 2 and printed[-1].startswith("ciea: error: ") else "unclear"
        tally.add(found, f"seed {seed}: {name}: {status} {printed[-1:]}")
        (folder / name).write_bytes(original)
    tally.check()
