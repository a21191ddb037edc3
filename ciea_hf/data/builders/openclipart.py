"""Open Clip Art Library 0.18 as a retrieval data set in the WebQA format, from Debian's openclipart-svg and -png.

The drawings are in the public domain. Each has a title and tags by its author, and some have a description. The caption
of an image is the title; a text document is a long description; a query joins words of a title with tags that do not
occur in the title, so that these have to be found in the image. The data set is reproducible to the byte with the same
version of Pillow.
"""

from __future__ import annotations

import base64
import json
import random
import re
import warnings
from collections import defaultdict
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

from PIL import Image
from tqdm.auto import tqdm

from ciea_hf.data.readers.webqa import CAPTIONS, IMAGES, INDEX, TEXTS
from ciea_hf.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SIDE = 112  # pixels
MAX_PIXELS = 30_000_000  # some drawings have over two hundred million
EXCLUDED = (("computer", "icons"), ("shapes",))  # icon themes and geometric series
STOPWORDS = frozenset(
    ("unsorted", "hash", "special", "computer", "icon", "icons", "theme", "clipart", "lemon_theme_icon")
)
FIRST_ID = 30_000_000
_SEED = 7
_MOST_IMAGES = 8  # images per title and tags; with more of them a query is too vague
_TAGS, _TITLE_WORDS, _DOCUMENT_WORDS, _QUERY_WORDS = 3, 6, 6, 3
_PHRASES = ("{title} {tags}", "{tags} , {title}", "a picture of {tags} named {title}", "{tags} {title}")
_CARD = """# Open Clip Art in the WebQA format

{images} drawings of the Open Clip Art Library 0.18 (public domain), from Debian's openclipart-svg and openclipart-png,
scaled to {side} pixels on white. Captions are the titles; {texts} text documents are the longer descriptions; a query
joins words of a title with tags that do not occur in it. Icon themes, geometric series and drawings of more than
{pixels} million pixels are excluded. Built by `ciea data build openclipart`.
"""


class Drawing(NamedTuple):
    """A drawing and the texts of its author.

    Attributes:
        number: Index among all drawings with a title and tags.
        file: PNG file.
        title: Title, with white space and underscores as single spaces.
        tags: Lower-case tags, without meaningless ones.
        description: Description, on one line.
    """

    number: int
    file: Path
    title: str
    tags: frozenset[str]
    description: str

    @property
    def image_id(self) -> str:
        """Id of the image in the data set."""
        return str(FIRST_ID + self.number)

    @property
    def is_described(self) -> bool:
        """Whether the description is long enough for a text document."""
        return len(self.description.split()) >= _DOCUMENT_WORDS and self.description.lower() != self.title.lower()


def build_openclipart(source: Path, folder: Path, progress: bool = False) -> dict[str, int]:
    """Build the data set.

    Args:
        source: Folder of the unpacked or installed packages, which contains `svg` and `png`, or a folder above it.
        folder: Output folder; an existing one is replaced.
        progress: Whether to show a progress bar.

    Returns:
        Number of images, texts, and queries per split.

    Raises:
        FileNotFoundError: If the packages are not found.
    """
    root = _find(source)
    candidates = list(tqdm(_drawings(root), desc="reading titles", unit="picture", disable=not progress))
    with atomic_folder(folder) as target:
        shown = tqdm(candidates, desc="drawing", unit="picture", disable=not progress)
        drawings = _write_images(shown, target)
        texts = [drawing for drawing in drawings if drawing.is_described]
        _write_lines(
            target / CAPTIONS,
            ({"image_id": p.image_id, "caption": p.title, "title": p.title} for p in drawings),
        )
        _write_lines(target / TEXTS, ({"snippet_id": f"d{p.number}", "fact": p.description} for p in texts))
        splits = _split(_queries(drawings, texts))
        for split, queries in splits.items():
            _write_lines(target / f"{split}.json", queries)
            judged = ((q["qid"], name) for q in queries for name in q["img_posFacts"] + q["txt_posFacts"])
            qrels = "".join(f"{query}\t{name}\t1\n" for query, name in judged)
            (target / f"{split}_qrels.txt").write_text(qrels, encoding="utf-8")
        card = _CARD.format(images=len(drawings), side=SIDE, texts=len(texts), pixels=MAX_PIXELS // 1_000_000)
        (target / "README.md").write_text(card, encoding="utf-8")
    return {"images": len(drawings), "texts": len(texts)} | {split: len(rows) for split, rows in splits.items()}


def thumbnail(file: Path) -> bytes | None:
    """Scale a drawing to a white square of 112 pixels.

    Returns:
        Bytes of a PNG file; `None` if the drawing is corrupt or exceeds the pixel limit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                drawn = opened.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(drawn, ((SIDE - drawn.width) // 2, (SIDE - drawn.height) // 2), drawn)
    buffer = BytesIO()
    square.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _find(source: Path) -> Path:
    inside = ("", "openclipart", "share/openclipart", "usr/share/openclipart")
    for root in (source / path for path in inside):
        if (root / "svg").is_dir() and (root / "png").is_dir():
            return root
    raise FileNotFoundError(
        f"{source} does not contain openclipart/svg and openclipart/png: "
        "`apt-get download openclipart-svg openclipart-png`, then `dpkg -x` each into it"
    )


def _drawings(root: Path) -> Iterator[Drawing]:
    """Yield the drawings with a title and tags, in the order of their paths."""
    number = 0
    files = {file.relative_to(root / "svg").parts: file for file in (root / "svg").rglob("*.svg")}
    for parts in sorted(files):
        if any(parts[: len(prefix)] == prefix for prefix in EXCLUDED):
            continue
        title, written, description = _metadata(files[parts])
        tags = frozenset(tag.replace("_", " ") for tag in written if tag and tag not in STOPWORDS)
        if title and tags:
            yield Drawing(number, (root / "png").joinpath(*parts).with_suffix(".png"), title, tags, description)
            number += 1


def _metadata(file: Path) -> tuple[str, list[str], str]:
    """Read title, tags and description of a drawing; all are empty if missing or if the file is invalid."""
    try:
        for _, element in ET.iterparse(file):  # noqa: S314 (expat limits the expansion of entities)
            if _local(element) == "Work":
                break
        else:
            return "", [], ""
    except (ET.ParseError, LookupError, ValueError):  # the last two for encodings that expat does not support
        return "", [], ""
    found: dict[str, ET.Element] = {}
    for child in element:
        found.setdefault(_local(child), child)
    tags = found["subject"].iter() if "subject" in found else ()
    written = [(tag.text or "").strip().lower() for tag in tags if _local(tag) == "li"]
    title, description = (found[name].text or "" if name in found else "" for name in ("title", "description"))
    return re.sub(r"[\s_]+", " ", title).strip(), written, " ".join(description.split())


def _local(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _write_images(drawings: Iterable[Drawing], folder: Path) -> list[Drawing]:
    """Write the TSV file of images and its index; return the drawings that were written."""
    drawn = []
    with (folder / IMAGES).open("wb") as images, (folder / INDEX).open("w", encoding="utf-8", newline="\n") as index:
        for drawing in drawings:
            content = thumbnail(drawing.file)
            if content is not None:
                index.write(f"{drawing.image_id}\t{images.tell()}\n")
                images.write(drawing.image_id.encode() + b"\t" + base64.b64encode(content) + b"\n")
                drawn.append(drawing)
    return drawn


def _queries(drawings: list[Drawing], texts: list[Drawing]) -> Iterator[dict[str, Any]]:
    """Yield queries for each title with its tags, and for each text, in random order."""
    rng = random.Random(_SEED)
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for drawing in drawings:
        groups[drawing.title.lower(), tuple(sorted(drawing.tags))].append(drawing.image_id)
    queries = []
    for number, (title, tags) in enumerate(sorted(groups)):
        words = re.findall(r"[a-z0-9]+", title)
        lacking = [tag for tag in tags if not set(re.findall(r"[a-z0-9]+", tag)) <= set(words)]
        if not lacking or len(groups[title, tags]) > _MOST_IMAGES:
            continue
        rng.shuffle(lacking)
        phrase = rng.choice(_PHRASES)
        text = phrase.format(title=" ".join(words[:_TITLE_WORDS]), tags=" ".join(lacking[:_TAGS]))
        queries.append(_query(f"i{number}", text, images=groups[title, tags]))
    for drawing in texts:
        words = re.findall(r"[a-z0-9]{4,}", drawing.description.lower())
        if len(words) >= _QUERY_WORDS:
            name = f"d{drawing.number}"
            queries.append(_query(f"t{name}", " ".join(rng.sample(words, _QUERY_WORDS)), texts=[name]))
    rng.shuffle(queries)
    yield from queries


def _query(name: str, text: str, images: Iterable[str] = (), texts: Iterable[str] = ()) -> dict[str, Any]:
    facts = {"img_posFacts": list(images), "img_negFacts": [], "txt_posFacts": list(texts), "txt_negFacts": []}
    return {"qid": name, "Q": text, "A": "", **facts}


def _split(queries: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Split the queries: a fifth for test, a twentieth for dev, the rest for training."""
    rows = list(queries)
    test, dev = len(rows) // 5, len(rows) // 4
    return {"train": rows[dev:], "dev": rows[test:dev], "test": rows[:test]}


def _write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as opened:
        opened.writelines(json.dumps(row) + "\n" for row in rows)
