"""Open Clip Art, built from the packages of Debian."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ciea_hf.cli import main
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.builders.openclipart import SIDE, build_openclipart, thumbnail
from tests.data.test_check import check, png_of_size

if TYPE_CHECKING:
    from pathlib import Path

SVG = """<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/"
     xmlns:cc="http://web.resource.org/cc/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<metadata><rdf:RDF><cc:Work>
{title}{description}
<dc:subject><rdf:Bag>{tags}</rdf:Bag></dc:subject>
<dc:creator><cc:Agent><dc:title>Somebody</dc:title></cc:Agent></dc:creator>
</cc:Work></rdf:RDF></metadata><rect/></svg>"""
IMAGES = {
    "animals/bee.svg": ("Big_bee", ["insect", "BEE", "unsorted", "signs_and_symbols"], None),
    "animals/cat.svg": ("cat", ["cat", "mammal"], "A cat that sleeps   on a\nwarm roof"),
    "animals/cow.svg": ("cow", ["cow"], "cow"),  # tags that say nothing new: no query
    "animals/huge.svg": ("huge", ["mammal"], None),  # too many pixels
    "animals/torn.svg": ("torn", ["mammal"], None),  # a broken image
    "animals/untagged.svg": ("untagged", ["unsorted", "hash"], "A description of more than six words"),
    "animals/untitled.svg": (None, ["mammal"], None),
    "computer/icons/a.svg": ("icon", ["mammal"], None),
    "computer/mouse.svg": ("mouse", ["computer", "hardware"], "Mouse"),
    "shapes/star.svg": ("star", ["yellow"], None),
} | {f"tools/{n}.svg": ("hammer", ["tool"], "a b c d e f") for n in range(9)}  # more than a query asks for
NUMBERS = {"Big bee": 0, "cat": 1, "cow": 2, "mouse": 5}  # huge and torn have numbers, too


def drawing(size: tuple[int, int] = (40, 20), alpha: int = 0) -> bytes:
    image = Image.new("RGBA", size, (255, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, alpha))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "unpacked" / "usr" / "share" / "openclipart"
    for path, (title, tags, description) in IMAGES.items():
        file, shown = root / "svg" / path, (root / "png" / path).with_suffix(".png")
        for folder in (file.parent, shown.parent):
            folder.mkdir(parents=True, exist_ok=True)
        parts = {
            "title": f"<dc:title> {title} </dc:title>" if title else "<dc:title/>",
            "description": f"<dc:description>{description}</dc:description>" if description else "",
            "tags": "".join(f"<rdf:li>{tag}</rdf:li>" for tag in tags) + "<rdf:li/>",
        }
        file.write_text(SVG.format(**parts), encoding="utf-8")
        shown.write_bytes(drawing())
    (root / "png" / "animals" / "huge.png").write_bytes(png_of_size(20_000, 20_000))
    (root / "png" / "animals" / "torn.png").write_bytes(drawing()[:-30])
    (root / "svg" / "animals" / "broken.svg").write_text("<svg><metadata>")
    return tmp_path / "unpacked"


def test_images_texts_and_queries(source: Path, tmp_path: Path) -> None:
    counts = build_openclipart(source, tmp_path / "set")
    assert (counts["images"], counts["texts"]) == (13, 10)
    data = {split: load_retrieval_dataset(tmp_path / "set", split) for split in ("train", "dev", "test")}
    titles = dict(zip(data["train"].corpus_ids, data["train"].corpus["text"], strict=True))
    assert {title: titles[str(30_000_000 + number)] for title, number in NUMBERS.items()} == {t: t for t in NUMBERS}
    assert titles["d1"] == "A cat that sleeps on a warm roof"
    tables = [part.queries[:] for part in data.values()]
    queries = {query: text for rows in tables for query, text in zip(rows["id"], rows["text"], strict=True)}
    images = {text for name, text in queries.items() if name.startswith("i")}
    forms = [r"{title} {tags}", r"{tags} , {title}", r"a picture of {tags} named {title}", r"{tags} {title}"]
    tags = {"big bee": "(insect signs and symbols|signs and symbols insect)", "cat": "mammal", "mouse": "hardware"}
    for title, words in tags.items():
        patterns = "|".join(form.format(title=title, tags=words) for form in forms)
        assert any(re.fullmatch(patterns, text) for text in images), images
    assert len(images) == 3  # neither the cow nor the nine hammers
    asked = queries["td1"].split()
    assert len(asked) == 3
    assert set(asked) < {"that", "sleeps", "warm", "roof"}
    qrels = {query: row for part in data.values() for query, row in part.qrels.items()}
    assert qrels["td1"] == {"d1": 1}
    found = sorted(next(iter(row)) for query, row in qrels.items() if query.startswith("i"))
    assert found == ["30000000", "30000001", "30000005"]


def test_building_again_gives_the_same_without_issues(source: Path, tmp_path: Path) -> None:
    assert main(["data", "build", "openclipart", "--output", str(tmp_path / "a"), "--source", str(source)]) == 0
    build_openclipart(source / "usr" / "share", tmp_path / "b")  # as if it were installed
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    _, result = check(tmp_path / "a")
    assert {issue.kind for issue in result.issues} <= {"same-image", "same-text", "shared-positive"}


def test_thumbnails_are_on_white(source: Path) -> None:
    content = thumbnail(source / "usr/share/openclipart/png/animals/cat.png")
    assert content is not None
    image = Image.open(io.BytesIO(content))
    assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")
    assert image.getpixel((SIDE // 2, SIDE // 2)) == (255, 0, 0)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert thumbnail(source / "usr/share/openclipart/png/animals/huge.png") is None
    assert thumbnail(source / "absent.png") is None


def test_missing_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "build", "openclipart", "--output", str(tmp_path / "a"), "--source", str(tmp_path)]) == 2
    assert "apt-get download openclipart-svg" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_lines_are_as_webqa_has_them(source: Path, tmp_path: Path) -> None:
    build_openclipart(source, tmp_path / "set")
    judged = []
    for line in (tmp_path / "set" / "train.json").read_text().splitlines():
        row = json.loads(line)
        assert list(row) == ["qid", "Q", "A", "img_posFacts", "img_negFacts", "txt_posFacts", "txt_negFacts"]
        judged += [f"{row['qid']}\t{name}\t1" for name in row["img_posFacts"] + row["txt_posFacts"]]
    assert (tmp_path / "set" / "train_qrels.txt").read_text().splitlines() == judged
    index = [line.split("\t") for line in (tmp_path / "set" / "imgs.lineidx.new").read_text().splitlines()]
    content = (tmp_path / "set" / "imgs.tsv").read_bytes()
    assert all(content[int(offset) :].startswith(f"{name}\t".encode()) for name, offset in index)
