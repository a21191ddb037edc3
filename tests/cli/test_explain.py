"""`ciea explain` and `ciea search --explain`."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ciea_hf.cli import main
from tests.support.commands import fails
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def image(tmp_path: Path) -> str:
    toy_image(1).save(tmp_path / "scene.png")
    toy_image(2).save(tmp_path / "query.png")
    return str(tmp_path / "scene.png")


@pytest.mark.parametrize(
    "options",
    [
        ["--caption", "a red cat"],
        ["--query", "the blue boat"],
        ["--caption", "a red cat", "--query", "the blue boat", "--method", "occlusion"],
        ["--caption", "a red cat", "--query-image", "query.png", "--method", "weights"],
        ["--caption", "a red cat", "--query-image", "query.png", "--query", "the boat"],
    ],
)
def test_a_map_is_drawn_and_its_scores_are_printed(
    model: str, image: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "why.png"
    options = [str(tmp_path / option) if option.endswith(".png") else option for option in options]
    assert main(["explain", model, "--image", image, *options, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert re.match(r"score -?\d\.\d{4}\nlost without the 1 marked patches ", printed)
    assert str(output) in printed
    with Image.open(output) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 500


def test_the_image_of_a_query_is_not_its_text(
    model: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for options in (["--query", "boat"], ["--query-image", str(tmp_path / "query.png")]):
        assert main(["explain", model, "--image", image, *options, "--output", str(tmp_path / "why.png")]) == 0
        printed.append(capsys.readouterr().out.splitlines()[0])
    assert printed[0] != printed[1]


def test_bad_input_of_explain(
    model: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["explain", model, "--image", image, "--output", str(tmp_path / "why.png")]
    assert "give a --query, a --query-image, or a --caption" in fails(capsys, *command)
    assert "give a --query" in fails(capsys, *command, "--caption", " ")
    assert "--query-image gone.png not found" in fails(capsys, *command, "--query-image", "gone.png")
    assert "--image gone.png not found" in fails(capsys, *command, "--query", "a", "--image", "gone.png")
    assert "the model has no gates" in fails(capsys, *command, "--caption", "a cat", "--method", "gates")
    assert "--output must be a file" in fails(capsys, *command, "--caption", "a", "--output", str(tmp_path))
    (tmp_path / "text.png").write_text("no image")
    assert "cannot be decoded" in fails(capsys, *command, "--query", "a", "--image", str(tmp_path / "text.png"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert 'pip install "ciea-hf[explain]"' in fails(capsys, *command, "--query", "a")
    assert not (tmp_path / "why.png").exists()


def hits_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_search_explains_each_image_that_it_finds(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hits, index = tmp_path / "hits.jsonl", str(tmp_path / "index")
    queries = ["a red cat", "the house", "--top-k", "4", "--output", str(hits)]
    assert main(["search", model, dataset, *queries, "--explain", str(tmp_path / "why")]) == 0
    expected = []
    for position, hit in enumerate(hits_of(hits)):
        if hit["kind"] == "image":
            expected.append(f"{position // 4 + 1:02d}-{position % 4 + 1:02d}-{hit['id']}.png")
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == expected
    assert f"{len(expected)} maps: {tmp_path / 'why'}" in capsys.readouterr().out
    assert len(expected) > 1
    assert main(["index", model, dataset, "--output", index, "--content", "image"]) == 0
    assert main(["search", model, index, *queries, "--explain", str(tmp_path / "alone")]) == 0
    assert list((tmp_path / "alone").glob("*.png"))


def test_maps_of_a_search_explain_the_scores_of_its_hits(
    model: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ciea_hf.explain as package

    explained: dict[str, float] = {}
    draw = package.save_explanations

    def save(found: package.Explanation, path: Path) -> None:
        explained[path.stem[3:5]] = found.score
        draw(found, path)

    monkeypatch.setattr(package, "save_explanations", save)
    hits, index = tmp_path / "hits.jsonl", str(tmp_path / "index")
    for content in ("full", "image"):
        assert main(["index", model, dataset, "--output", f"{index}-{content}", "--content", content]) == 0
        command = ["search", model, f"{index}-{content}", "a red cat", "--output", str(hits)]
        assert main([*command, "--explain", str(tmp_path / "why")]) == 0
        scores = {f"{hit['rank']:02d}": float(hit["score"]) for hit in hits_of(hits) if hit["kind"] == "image"}
        assert explained == pytest.approx(scores, abs=1e-5)
        explained.clear()


def test_bad_input_of_search(model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", model, dataset, "a red cat", "--explain"]
    (tmp_path / "file").write_text("")
    assert "--explain must be a folder" in fails(capsys, *command, str(tmp_path / "file"))
    assert "--content must be full or image" in fails(capsys, *command, str(tmp_path / "why"), "--content", "caption")
    assert not (tmp_path / "why").exists()


def test_other_models_are_refused(tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model(extractor_weights="uniform").save_pretrained(tmp_path / "uniform")
    command = ["explain", str(tmp_path / "uniform"), "--image", image, "--caption", "a", "--output"]
    assert "the model has no weights" in fails(capsys, *command, str(tmp_path / "why.png"), "--method", "weights")
