from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from ciea_hf.retrieval import gallery
from ciea_hf.retrieval.gallery import GalleryRow, contact_sheet
from ciea_hf.retrieval.search import Hit

RED = (200, 10, 10)


def hits(count: int = 3) -> list[Hit]:
    kinds = ["image", "text", "image"]
    return [Hit(f"d{i}", 0.9 - i / 10, i + 1, kinds[i % 3], "a caption " * (i + 1)) for i in range(count)]


def image_of(name: str) -> Image.Image | None:
    return None if name == "d1" else Image.new("RGB", (20, 20), RED)


def count(sheet: Image.Image, colour: str | tuple[int, int, int], columns: slice = slice(None)) -> int:
    pixels = np.asarray(sheet)[:, columns]
    return int((pixels == np.array(ImageColor.getrgb(colour) if isinstance(colour, str) else colour)).all(-1).sum())


def card_columns(number: int) -> slice:
    left = gallery.MARGIN + number * (gallery.CARD_WIDTH + gallery.GAP)
    return slice(left, left + gallery.CARD_WIDTH)


def test_relevant_cards_alone_are_framed() -> None:
    sheet = contact_sheet([GalleryRow("a query", hits(), {"d2"})], image_of)
    framed = [count(sheet, gallery.GREEN, card_columns(number)) > 1000 for number in range(3)]
    assert framed == [False, False, True]
    assert count(contact_sheet([GalleryRow("a query", hits())], image_of), gallery.GREEN) == 0


def test_images_fill_their_cards_and_texts_have_none() -> None:
    sheet = contact_sheet([GalleryRow("a query", hits())], image_of)
    assert [count(sheet, RED, card_columns(number)) for number in range(3)] == [
        gallery.IMAGE_SIZE**2,
        0,
        gallery.IMAGE_SIZE**2,
    ]


def test_size_follows_queries_and_hits() -> None:
    one = contact_sheet([GalleryRow("q", hits(3))], image_of)
    two = contact_sheet([GalleryRow("q", hits(5)), GalleryRow("r", hits(2))], image_of)
    assert two.width - one.width == 2 * (gallery.CARD_WIDTH + gallery.GAP)
    assert two.height - one.height == one.height - gallery.MARGIN
    with pytest.raises(ValueError, match="at least one query"):
        contact_sheet([], image_of)


def raise_error(*_args: Any) -> None:
    raise OSError


@pytest.mark.parametrize("system_font", [True, False])
def test_long_text_is_wrapped_and_shortened(system_font: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ImageFont.load_default(15)
    if not system_font:
        monkeypatch.setattr(ImageFont, "truetype", raise_error)
        monkeypatch.setattr(ImageFont, "load_default", lambda _size: own)
    gallery._font.cache_clear()
    font = gallery._font(15)
    lines = gallery._wrap("word " * 50 + "x" * 80, font, 150, lines=3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 150 for line in lines)
    (cut,) = gallery._wrap("x" * 80, font, 150, lines=3)
    assert cut.endswith("x...")
    assert gallery._wrap("short text", font, 150, lines=3) == ["short text"]
    assert gallery._wrap("", font, 150, lines=3) == []
    gallery._font.cache_clear()
