"""Contact sheets of search results: a row per query, a card per hit, and green frames around relevant documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ciea_hf.retrieval.search import Hit

    Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

MARGIN = 28
GAP = 16
INSET = 10
CARD_WIDTH = 220
IMAGE_SIZE = CARD_WIDTH - 2 * INSET
CAPTION_LINES = 3
TEXT_LINES = 8
LINE_HEIGHT = 20
HEADER_HEIGHT = 66
FOOTER_TOP = IMAGE_SIZE + 2 * INSET
CARD_HEIGHT = FOOTER_TOP + 28 + CAPTION_LINES * LINE_HEIGHT + INSET
RADIUS = 12

PAPER = "#f4f5f7"
CARD = "#ffffff"
BORDER = "#d9dce1"
INK = "#1c1e21"
FADED = "#6b7280"
NOTE = "#eef2f9"
GREEN = "#16a34a"


@dataclass(frozen=True)
class GalleryRow:
    """Results of one query.

    Attributes:
        query: Text of the query.
        hits: Hits, best first.
        relevant: Ids of the documents known to be relevant.
    """

    query: str
    hits: Sequence[Hit]
    relevant: Collection[str] = field(default_factory=frozenset)


def contact_sheet(rows: Sequence[GalleryRow], image_of: Callable[[str], Image.Image | None]) -> Image.Image:
    """Draw search results.

    Args:
        rows: Queries with their hits.
        image_of: Function from a document id to its image, or `None`, in which case the card shows the text.

    Returns:
        An RGB image with one row of cards per query.

    Raises:
        ValueError: If `rows` is empty.
    """
    if not rows:
        raise ValueError("`rows` must contain at least one query with its hits")
    columns = max(3, *(len(row.hits) for row in rows))
    width = 2 * MARGIN + columns * CARD_WIDTH + (columns - 1) * GAP
    row_height = HEADER_HEIGHT + CARD_HEIGHT + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * row_height), PAPER)
    for number, row in enumerate(rows):
        top = MARGIN + number * row_height
        _draw_header(ImageDraw.Draw(sheet), row, top, width - 2 * MARGIN)
        for column, hit in enumerate(row.hits):
            card = _card(hit, image_of(hit.id), hit.id in row.relevant)
            sheet.paste(card, (MARGIN + column * (CARD_WIDTH + GAP), top + HEADER_HEIGHT), _rounded_mask(card.size))
    return sheet


def _draw_header(draw: ImageDraw.ImageDraw, row: GalleryRow, top: int, width: int) -> None:
    title = _wrap(row.query, _font(24), width, lines=1)
    draw.text((MARGIN, top), title[0] if title else "", font=_font(24), fill=INK)
    draw.text((MARGIN, top + 34), _verdict(row), font=_font(15), fill=FADED)


def _verdict(row: GalleryRow) -> str:
    if not row.relevant:
        return f"top {len(row.hits)}"
    ranks = [str(hit.rank) for hit in row.hits if hit.id in row.relevant]
    found = f"at rank {', '.join(ranks)}" if ranks else f"not among the top {len(row.hits)}"
    noun = "relevant document" if len(row.relevant) == 1 else "relevant documents"
    return f"{len(row.relevant)} {noun}: {found}"


def _card(hit: Hit, image: Image.Image | None, relevant: bool) -> Image.Image:
    card = Image.new("RGB", (CARD_WIDTH, CARD_HEIGHT), CARD)
    draw = ImageDraw.Draw(card)
    if image is None:
        _draw_text_body(draw, hit)
    else:
        card.paste(_fitted(image), (INSET, INSET))
        _draw_lines(
            draw, _wrap(hit.text or "", _font(15), CARD_WIDTH - 2 * INSET, CAPTION_LINES), INSET, FOOTER_TOP + 28
        )
    _draw_score(draw, hit, relevant)
    frame = {"outline": GREEN, "width": 5} if relevant else {"outline": BORDER, "width": 1}
    draw.rounded_rectangle((0, 0, CARD_WIDTH - 1, CARD_HEIGHT - 1), RADIUS, **frame)  # type: ignore[arg-type]
    return card


def _draw_text_body(draw: ImageDraw.ImageDraw, hit: Hit) -> None:
    draw.rectangle((INSET, INSET, INSET + IMAGE_SIZE, INSET + IMAGE_SIZE), fill=NOTE)
    kind = "TEXT" if hit.kind == "text" else "IMAGE NOT SHOWN"
    draw.text((2 * INSET, 2 * INSET - 4), kind, font=_font(12), fill=FADED)
    _draw_lines(draw, _wrap(hit.text or "", _font(15), CARD_WIDTH - 4 * INSET, TEXT_LINES), 2 * INSET, 4 * INSET - 2)


def _draw_score(draw: ImageDraw.ImageDraw, hit: Hit, relevant: bool) -> None:
    top = FOOTER_TOP
    draw.text((INSET, top), f"{hit.rank}", font=_font(17), fill=GREEN if relevant else INK)
    draw.text((INSET + 26, top + 2), f"{hit.score:.3f}", font=_font(15), fill=FADED)
    if relevant:
        right = CARD_WIDTH - INSET
        draw.text((right, top + 2), "relevant", font=_font(15), fill=GREEN, anchor="ra")
        left = right - 16 - draw.textlength("relevant", font=_font(15))
        draw.line([(left - 6, top + 11), (left - 1, top + 16), (left + 8, top + 5)], fill=GREEN, width=3, joint="curve")


def _draw_lines(draw: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + number * LINE_HEIGHT), line, font=_font(15), fill=INK)


def _fitted(image: Image.Image) -> Image.Image:
    """Return the uncropped image, scaled to its part of the card, on the colour of the card."""
    opaque = image.convert("RGBA")
    white = Image.new("RGBA", opaque.size, CARD)
    flat = Image.alpha_composite(white, opaque).convert("RGB")
    return ImageOps.pad(flat, (IMAGE_SIZE, IMAGE_SIZE), method=Image.Resampling.LANCZOS, color=PAPER)


def _rounded_mask(size: tuple[int, int]) -> Image.Image:
    scale = 4  # drawn larger and scaled down, for smooth corners
    mask = Image.new("L", (size[0] * scale, size[1] * scale), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), RADIUS * scale, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _wrap(text: str, font: Font, width: int, lines: int) -> list[str]:
    """Break text into lines of at most `width` pixels; truncated text ends in an ellipsis."""
    wrapped: list[str] = []
    words = text.split()
    while words and len(wrapped) < lines:
        count = _fitting(words, font, width)
        wrapped.append(" ".join(words[:count]) if count else _shortened(words[0], font, width))
        words = words[max(1, count) :]
    if words:
        wrapped[-1] = _shortened(wrapped[-1] + " " + words[0], font, width)
    return wrapped


def _fitting(words: Sequence[str], font: Font, width: int) -> int:
    count = 0
    while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= width:
        count += 1
    return count


def _shortened(text: str, font: Font, width: int) -> str:
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip(" .") + "..."


@lru_cache(maxsize=8)
def _font(size: int) -> Font:
    """Return DejaVu Sans, which covers many scripts, if installed, else the font of Pillow."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
