"""`ciea push`, `ciea pull` and `ciea convert --push`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ciea_hf import CIEAModel
from ciea_hf.cli import main
from tests.support.helpers import text_config, tiny_model, toy_image, vision_config
from tests.support.hub_state import Fault

if TYPE_CHECKING:
    from tests.support.hub_server import MemoryHub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_push_prints_its_result_and_pull_prints_the_folder(
    hub: MemoryHub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(folder), "org/ciea", "--private", "--message", "First"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sent       model.safetensors" in lines
    commit = hub.repositories["org/ciea"].refs["refs/heads/main"]
    assert lines[-1] == f"{hub.url}/org/ciea/commit/{commit}"
    assert hub.repositories["org/ciea"].log[commit][1] == "First"
    assert main(["push", str(folder), "org/ciea"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert "unchanged  model.safetensors" in again
    assert "Nothing to do: the repository is up to date." in again
    assert main(["pull", "org/ciea", "--revision", commit, "--output", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "here")
    assert np.allclose(CIEAModel.from_pretrained(tmp_path / "here").encode("a"), tiny_model().encode("a"), atol=1e-5)


def test_push_of_a_pull_request_to_a_branch(hub: MemoryHub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.create("org/ciea")
    assert main(["push", str(folder), "org/ciea", "--create-pr"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.url}/org/ciea/discussions/1"
    assert main(["push", str(folder), "org/ciea", "--revision", "v2"]) == 0
    assert "model.safetensors" in hub.repositories["org/ciea"].files("v2")


def test_push_dry_run(hub: MemoryHub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(folder), "org/ciea", "--dry-run", "--output", str(tmp_path / "preview")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "written    model.safetensors" in lines
    assert lines[-1] == str(tmp_path / "preview")
    assert (tmp_path / "preview" / "README.md").is_file()
    assert hub.requests == []


def test_errors_are_one_line_with_the_remedy(hub: MemoryHub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.faults.append(Fault("/objects/batch", 403, times=9, message="Storage limit reached."))
    assert main(["push", str(folder), "org/ciea"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ciea: error: org/ciea was not pushed: the storage of org on the Hub is full")
    assert error.endswith("Run the same command again to continue; uploaded files are not sent twice.")
    assert main(["pull", "org/missing"]) == 2
    assert "repository org/missing not found" in capsys.readouterr().err
    (folder / "optimizer.pt").write_bytes(b"")
    assert main(["push", str(folder), "org/ciea"]) == 2
    assert "optimizer.pt is or may be a pickle" in capsys.readouterr().err


def test_convert_pushes_to_the_hub(hub: MemoryHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(use_extractor=False)
    vision_config().save_pretrained(tmp_path / "vision")
    model.processor.image_processor.save_pretrained(tmp_path / "vision")
    text_config().save_pretrained(tmp_path / "text")
    model.processor.tokenizer.save_pretrained(tmp_path / "text")
    state = {name.replace("vision_model.", "clip_model.vision_model."): t for name, t in model.state_dict().items()}
    state = {name.replace("text_model.", "t5_model."): tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "model": state}, tmp_path / "marvel.pt")
    command = ["convert", str(tmp_path / "marvel.pt"), "--vision-config", str(tmp_path / "vision")]
    command += ["--text-config", str(tmp_path / "text")]
    for name in ("image_token_id", "image_start_token_id", "image_end_token_id"):
        command += ["--set", f"{name}={getattr(model.config, name)}"]
    assert main(command) == 2
    assert "set --output FOLDER, --push REPO_ID or both" in capsys.readouterr().err
    assert main([*command, "--push", "org/marvel", "--private"]) == 0
    assert "MARVEL" in capsys.readouterr().out
    assert hub.repositories["org/marvel"].private
    assert b"# marvel" in hub.repositories["org/marvel"].files()["README.md"]
    document = [{"text": "a red cat", "image": toy_image(1)}]
    loaded = CIEAModel.from_pretrained("org/marvel")
    np.testing.assert_allclose(loaded.encode(document), model.encode(document), atol=1e-5)


def test_the_hub_package_is_imported_on_first_use() -> None:
    program = (
        "import sys, ciea_hf, ciea_hf.commands.push, ciea_hf.commands.pull\n"
        "assert not {'ciea_hf.hub', 'ciea_hf.model_cards'} & set(sys.modules)\n"
        "ciea_hf.push, ciea_hf.pull\nassert 'ciea_hf.hub' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2]).returncode == 0
