"""Why an image was found, as a dialog of the page."""

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
        HTML of the map over the image, and of what it means.

    Raises:
        ValueError: If the model cannot explain it.
        ImportError: If matplotlib is not installed.
    """
    from ciea_hf.explain import explain, explanation_image

    found = explain(system.model, image, hit.text, query)
    lost = found.faithfulness
    text = (
        f"The score is {found.score:.4f}. "
        f"With the whole image painted over it is {found.score - lost.lost_in_total:.4f}, "
        f"with the {lost.removed} marked patches {found.score - lost.lost:.4f}, "
        f"and with as many random patches {found.score - lost.lost_at_random:.4f} on average."
    )
    return dialog(
        f"Why {system.name} found {hit.id}",
        f'<div class="ciea-figure"><img src="{cards.data_uri(explanation_image(found), size=None)}" '
        f'alt="{cards.escape(text)}"></div><p class="ciea-reading">{cards.escape(text)}</p>',
    )


def dialog(title: str, content: str) -> str:
    """Return a dialog, which the page opens once it is there.

    Args:
        title: Heading.
        content: HTML below it.
    """
    return (
        f'<dialog class="ciea-why" aria-labelledby="ciea-why-title"><form method="dialog">'
        f'<h2 class="ciea-title" id="ciea-why-title">{cards.escape(title)}</h2>'
        f'<button class="ciea-close" aria-label="Close" autofocus>&times;</button></form>{content}</dialog>'
    )
