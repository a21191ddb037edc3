"""`ciea space`: the files of a Space, and the Space at work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import SpaceCard

from ciea_hf.app.space import GRADIO
from ciea_hf.app.systems import open_system
from ciea_hf.cli import main
from tests.support.commands import fails
from tests.support.processes import free_port

if TYPE_CHECKING:
    from tests.app.conftest import Files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def space(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "written"
    assert main(["space", str(folder), *files.arguments, "--title", "Two: models", "--license", "apache-2.0"]) == 0
    return folder


def test_the_card_is_what_the_hub_reads(space: Path) -> None:
    card = SpaceCard.load(space / "README.md")
    assert card.data.title == "Two: models"
    assert (card.data.sdk, card.data.sdk_version, card.data.app_file) == ("gradio", GRADIO, "app.py")
    assert card.data.license == "apache-2.0"
    assert "| first | indexes/1 | 6 |" in card.text
    assert f"gradio=={GRADIO}" in (ROOT / "constraints-app.txt").read_text()


def test_nothing_refers_to_this_machine(space: Path, files: Files) -> None:
    for path in space.rglob("*"):
        if path.suffix in (".py", ".md", ".txt", ".json", ".yaml"):
            assert str(files.dataset.parent) not in path.read_text(encoding="utf-8"), path


def test_models_indexes_and_images_are_complete(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(space)
    for number, name in ((1, "first"), (2, "second")):
        system = open_system(f"models/{number}/{name}", f"indexes/{number}", dataset="data")
        hits = system.retriever.search("a red cat", 3, filter={"modality": "image"})[0]
        assert all(system.image_of(hit.id) for hit in hits)


def test_hub_ids_stay_as_they_are(files: Files, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "hub"), "org/model", files.indexes[0], "--corpus", "org/scenes"]
    assert main(["space", *arguments, "--requirement", "ciea-hf[app] @ https://example.org/ciea.zip"]) == 0
    card = SpaceCard.load(tmp_path / "hub" / "README.md")
    assert card.data.to_dict()["models"] == ["org/model"]
    assert card.data.to_dict()["datasets"] == ["org/scenes"]
    assert (tmp_path / "hub" / "requirements.txt").read_text() == "ciea-hf[app] @ https://example.org/ciea.zip\n"
    assert "'org/model', 'indexes/1', '--corpus', 'org/scenes'" in (tmp_path / "hub" / "app.py").read_text()
    assert not (tmp_path / "hub" / "models").exists()


def test_invalid_arguments_are_named(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "already exists" in fails(capsys, "space", str(tmp_path / "full"), *files.arguments)
    assert "is not an index" in fails(capsys, "space", str(tmp_path / "new"), files.models[0], str(tmp_path))
    assert "another model" in fails(capsys, "space", str(tmp_path / "new"), files.models[1], files.indexes[0])
    assert not (tmp_path / "new").exists()


def test_the_space_serves_the_page(space: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed here; `make test-app` has it")
    gradio_client = pytest.importorskip("gradio_client")
    environment = os.environ | {"GRADIO_SERVER_PORT": str(free_port())}
    command = [sys.executable, str(space / "app.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[0]
            client = gradio_client.Client(url, verbose=False, analytics_enabled=False)
            assert len(client.predict("a red cat", None, "image", 2, api_name="/search")["second"]) == 2
        finally:
            process.terminate()
            assert process.wait(30) == 0
