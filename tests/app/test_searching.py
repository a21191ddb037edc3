"""Searches, cards and links of the page, without a browser."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi
from PIL import Image

from ciea_hf.app import cards
from ciea_hf.app.queries import Query, read_link, read_upload
from ciea_hf.app.searching import Searcher
from ciea_hf.app.systems import open_system, unique_names
from ciea_hf.retrieval import Hit
from tests.app.conftest import HOSTILE, Files
from tests.support.commands import fails
from tests.support.helpers import toy_image

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.app.systems import System
    from tests.support.hub_server import MemoryHub


@pytest.fixture(scope="module")
def system(files: Files) -> System:
    return open_system(files.models[0], files.indexes[0])


def test_hits_are_those_of_the_retriever(system: System) -> None:
    searcher = Searcher([system])
    found = searcher.hits("a red cat", None, "all", 3)["first"]
    expected = system.retriever.search("a red cat", 3)[0]
    assert [(hit["id"], hit["score"]) for hit in found] == [(hit.id, hit.score) for hit in expected]
    answer = searcher.search(" a red cat ", None, "text", 50)
    assert {hit.kind for hit in answer.hits[0].values()} == {"text"}
    assert answer.link == "q=a+red+cat&kind=text&k=50"
    assert read_link({"q": "a red cat", "kind": "text", "k": "50"}) == ("a red cat", "text", 50)


def test_invalid_queries_are_messages(system: System, tmp_path: Path) -> None:
    searcher = Searcher([system])
    assert "drop an image" in searcher.search("  ", None).status
    assert "must be one of all, image, text" in searcher.search("a", None, "video").status
    assert "from 1 to 50" in searcher.search("a", None, "all", 0).status
    assert "at most 10000 characters" in searcher.search("a" * 10_001, None).status
    assert "drop it again" in searcher.search(None, str(tmp_path / "gone.png")).status
    answer = searcher.search("a red cat", None)
    assert "search again" in searcher.explain(answer, 0, "img-unknown")
    assert "search again" in searcher.explain(answer, 9, "img-cat")
    with pytest.raises(ValueError, match="at least one model"):
        Searcher([])


def test_links_with_invalid_values_fall_back() -> None:
    assert read_link({}) == ("", "all", 10)
    assert read_link({"q": "x", "kind": "video", "k": "-3"}) == ("x", "all", 10)
    assert [read_link({"k": number})[2] for number in ("0", "7", "20", "9" * 5000)] == [10, 10, 20, 10]
    assert len(read_link({"q": "x" * 20_000})[0]) == 10_000


def test_queries_become_inputs_of_the_model(tmp_path: Path) -> None:
    toy_image(1).save(tmp_path / "x.png")
    both = Query("a cat", tmp_path / "x.png").content()
    assert both["text"] == "a cat"
    assert both["image"].tobytes() == toy_image(1).tobytes()
    assert Query("a cat").content() == "a cat"
    assert Query(None, tmp_path / "x.png").content().size == (40, 36)


def test_uploads_that_other_programs_would_open_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match="cannot be decoded; it must be a valid file"):
        read_upload(tmp_path / "x.png", 1000)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"too large.*maximum is 1000 pixels"):
        read_upload(tmp_path / "bomb.png", 1000)
    toy_image(1).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="the image cannot be decoded: "):
        read_upload(tmp_path / "cut.png", 10_000)


def test_everything_from_outside_is_escaped() -> None:
    hit = Hit(HOSTILE, 0.5, 1, "image", HOSTILE, {HOSTILE: HOSTILE})
    shown = cards.hit_list(HOSTILE, [hit], lambda _: "data:,", clickable=True) + cards.alert(HOSTILE)
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert not set("{}$`\\") & set(shown)
    assert "No document matches" in cards.hit_list(None, [], lambda _: None, clickable=True)


def test_images_are_scaled_whole() -> None:
    assert cards.data_uri(Image.new("RGB", (2000, 100))).startswith("data:image/webp;base64,")
    assert len(cards.data_uri(Image.new("RGB", (2000, 100)), size=None)) > 0


def test_an_index_whose_data_set_has_gone_is_searched_without_images(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from ciea_hf.retrieval import load_corpus

    corpus = load_corpus(files.indexes[0])
    corpus.settings["source"] = {"path": str(tmp_path / "gone"), "split": "test"}
    corpus.save(tmp_path / "moved.index")
    system = open_system(files.models[0], str(tmp_path / "moved.index"))
    assert "shows no images" in caplog.text
    searcher = Searcher([system])
    answer = searcher.search("a red cat", None, "image")
    assert "image not available" in answer.columns[0]
    assert "data-hit" not in answer.columns[0]
    assert "not available" in searcher.explain(answer, 0, "img-cat")
    restored = open_system(files.models[0], str(tmp_path / "moved.index"), dataset=str(files.dataset))
    assert restored.image_of("img-cat") is not None


def test_an_index_on_the_hub_is_downloaded(hub: MemoryHub, files: Files, tmp_path: Path) -> None:
    api = HfApi()
    api.create_repo("org/index")
    api.upload_folder(repo_id="org/index", folder_path=files.indexes[0])
    downloaded, local = (open_system(files.models[0], index) for index in ("org/index", files.indexes[0]))
    assert downloaded.retriever.search("a red cat", 6) == local.retriever.search("a red cat", 6)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("no index")
    api.create_repo("org/other")
    api.upload_folder(repo_id="org/other", folder_path=tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="org/other holds no index"):
        open_system(files.models[0], "org/other")
    with pytest.raises(OSError, match="org/gone"):
        open_system(files.models[0], "org/gone")


def test_importing_the_page_switches_telemetry_off() -> None:
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_names_of_systems_differ(system: System) -> None:
    assert [one.name for one in unique_names([system, system], ["a/best", "b/best"])] == ["a/best", "b/best"]
    assert [one.name for one in unique_names([system, system], ["a", "a"])] == ["a (1)", "a (2)"]


def test_invalid_arguments_are_named(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="is not an index"):
        open_system(files.models[0], str(tmp_path))
    with pytest.raises(ValueError, match="another model"):
        open_system(files.models[1], files.indexes[0])
    with pytest.raises(SystemExit):
        fails(capsys, "demo-app", files.models[0], files.indexes[0], "--compare", files.models[1])
