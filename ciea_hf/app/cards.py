"""HTML of the page: hits as cards with whole images and whole captions. Everything from outside is escaped."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ciea_hf.retrieval import Hit

THUMBNAIL = 480  # maximum length of the longer side in pixels
_QUALITY = 88
_TEMPLATE_CHARACTERS = {ord(character): f"&#{ord(character)};" for character in "{}$`\\"}


def escape(text: object) -> str:
    """Escape a text for HTML, attributes included, and for the templates that gradio fills in."""
    return html.escape(str(text), quote=True).translate(_TEMPLATE_CHARACTERS)


def hit_list(title: str | None, hits: Sequence[Hit], image_of: Callable[[str], str | None], clickable: bool) -> str:
    """Return the hits of one model.

    Args:
        title: Heading, or `None` for none.
        hits: Hits, best first.
        image_of: Function from a document id to the data URI of its image, or `None`.
        clickable: Whether the images can be explained.
    """
    heading = "" if title is None else f'<h2 class="ciea-title">{escape(title)}</h2>'
    if not hits:
        return f'{heading}<p class="ciea-note">No document matches.</p>'
    items = "".join(f"<li>{_card(hit, image_of(hit.id), clickable)}</li>" for hit in hits)
    return f'{heading}<ol class="ciea-hits">{items}</ol>'


def note(text: str) -> str:
    """Return a remark."""
    return f'<p class="ciea-note" role="status">{escape(text)}</p>'


def alert(text: str) -> str:
    """Return an error message."""
    return f'<p class="ciea-alert" role="alert">{escape(text[:1].upper() + text[1:])}.</p>'


def data_uri(image: Image.Image, size: int | None = THUMBNAIL) -> str:
    """Encode a whole image for HTML.

    Args:
        image: RGB image.
        size: Maximum length of the longer side in pixels; `None` keeps the size.
    """
    small = image.copy()
    if size is not None:
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, format="WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _card(hit: Hit, image: str | None, clickable: bool) -> str:
    inner = _picture(hit, image) + _text(hit) + _facts(hit)
    if image is None or not clickable:
        return f'<article class="ciea-card ciea-{escape(hit.kind)}">{inner}</article>'
    return (
        f'<button type="button" class="ciea-card ciea-image" data-hit="{escape(hit.id)}" '
        f'title="Show why this image was found">{inner}</button>'
    )


def _picture(hit: Hit, image: str | None) -> str:
    if image is not None:
        alternative = "" if hit.text else f"image {hit.id}"  # the caption follows
        return f'<span class="ciea-picture"><img src="{image}" alt="{escape(alternative)}"></span>'
    return '<span class="ciea-missing">image not available</span>' if hit.kind == "image" else ""


def _text(hit: Hit) -> str:
    return f'<span class="ciea-caption">{escape(hit.text)}</span>' if hit.text else ""


def _facts(hit: Hit) -> str:
    facts = [("rank", str(hit.rank)), ("score", f"{hit.score:.4f}"), ("kind", hit.kind), ("id", hit.id)]
    shown = "".join(f'<span class="ciea-{name}">{escape(value)}</span>' for name, value in facts)
    further = "".join(f'<span class="ciea-field">{escape(name)}: {escape(_short(value))}</span>'
                      for name, value in hit.metadata.items())  # fmt: skip
    return f'<span class="ciea-facts">{shown}{further}</span>'


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"
