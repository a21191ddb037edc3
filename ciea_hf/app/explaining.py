"""Why an image was found, as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.app import cards

if TYPE_CHECKING:
    from PIL import Image

    from ciea_hf.app.systems import System
    from ciea_hf.retrieval import Hit


def explanation(system: System, hit: Hit, image: Image.Image, query: Any) -> str:
    """Explain a hit.

    Args:
        system: Model that found it.
        hit: The hit.
        image: Its image.
        query: What was searched.

    Returns:
        HTML: a figure of the image and of the parts that the score comes from.

    Raises:
        ValueError: If the model cannot explain it.
    """
    picture, text = _figure(system.model, hit, image, query)
    source = cards.data_uri(picture, size=None)
    return (
        f'<section class="ciea-why" tabindex="-1" aria-label="Why this image was found">'
        f'<h2 class="ciea-title">Why {cards.escape(system.name)} found {cards.escape(hit.id)}</h2>'
        f'<img src="{source}" alt="{cards.escape(text)}">'
        f'<p class="ciea-caption">{cards.escape(hit.text or "")}</p>'
        f'<p class="ciea-note">{cards.escape(text)}</p></section>'
    )


def _figure(model: Any, hit: Hit, image: Image.Image, query: Any) -> tuple[Image.Image, str]:  # noqa: ARG001
    from ciea_hf.explain import overlay_complement

    picture = overlay_complement(model, image, hit.text or "")
    return picture, f"Score {hit.score:.4f}. Patches that the caption describes are dark."
