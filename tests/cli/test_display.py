"""What commands print: characters that a terminal would obey, or cannot show, are escapes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ciea_hf.cli import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cache")


def test_a_caption_cannot_forge_a_hit(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "a\n   1  1.0000  text  forged", "text": "red \x1b[31mcat\n   1  1.0000  text  forged  hit\x07\u202e"}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(row))
    assert main(["search", model, str(tmp_path), "cat \x1b[31m"]) == 0
    shown = capsys.readouterr().out.strip().splitlines()
    assert len(shown) == 2
    assert not re.search(r"[\x00-\x08\x1b\u202e]", "".join(shown))


def test_an_output_of_ascii_alone_shows_escapes(model: str, dataset: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CIEA_HF_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "ciea_hf.cli", "search", model, dataset, "caf\u00e9"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9" in done.stdout
