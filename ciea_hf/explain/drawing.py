"""Figures of explanations: the image with its marked patches beside the map, on one colour scale per figure."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ciea_hf.explain.explanation import Explanation
from ciea_hf.files import atomic_write
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 3.6  # inches: longer side of a panel
DPI = 120
WIDTH_OF_TEXT = 44  # characters of a line under a panel
LINES = 3
MARK = "#00a6d6"  # outline of marked patches, unlike both ends of the colour maps
DIVERGING, SEQUENTIAL = "PuOr_r", "cividis"  # both readable with colour-vision deficiencies
EXTRA = "explain"


def draw_explanations(explanations: Explanation | Sequence[Explanation]) -> Figure:
    """Draw explanations, one per row: the image with its marked patches, and the map.

    All maps of a figure have one colour scale, so that their values can be compared; it is symmetric around 0 for
    attributions and from 0 to 1 for weights and gates. The marked patches are those of the highest values, which
    [`Faithfulness`] removes.

    Args:
        explanations: One explanation, or several of one method.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no explanations, or their methods differ.
        ImportError: If matplotlib is not installed.
    """
    rows = [explanations] if isinstance(explanations, Explanation) else list(explanations)
    methods = sorted({row.method for row in rows})
    if len(methods) != 1:
        found = ", ".join(methods) or "none"
        raise ValueError(f"`explanations` must be of one method to share a colour scale; got {found}")
    figure_class = import_optional("matplotlib.figure", extra=EXTRA).Figure
    low, high = _scale(rows)
    longest = max(max(row.image.size) for row in rows)
    heights = [row.image.height / longest for row in rows]
    widest = max(row.image.width / longest for row in rows)
    size = (2 * SIDE * widest + 1.8, SIDE * sum(heights) + 1.3 * len(rows))
    figure: Figure = figure_class(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, height_ratios=[SIDE * height + 1.3 for height in heights])
    for row, (left, right) in zip(rows, grid, strict=True):
        _draw_image(left, row)
        shown = _draw_map(right, row, low, high)
    bar = figure.colorbar(shown, ax=grid, shrink=0.8, aspect=30)
    bar.set_label(rows[0].label)
    return figure


def explanation_image(explanations: Explanation | Sequence[Explanation], dpi: int = DPI) -> Image.Image:
    """Draw explanations as an RGB image; see [`draw_explanations`]."""
    buffer = io.BytesIO()
    draw_explanations(explanations).savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def save_explanations(explanations: Explanation | Sequence[Explanation], path: Path) -> None:
    """Draw explanations into a PNG file; see [`draw_explanations`]."""
    drawn = explanation_image(explanations)
    with atomic_write(path) as temporary:
        drawn.save(temporary, format="PNG")


def _scale(rows: Sequence[Explanation]) -> tuple[float, float]:
    """Return the range of the colours: the widest of the maps."""
    low, high = min(row.scale[0] for row in rows), max(row.scale[1] for row in rows)
    return (low, high) if low < high else (-1.0, 1.0)


def _draw_image(panel: Axes, explanation: Explanation) -> None:
    """Draw the image, with outlines around its marked patches."""
    rows, columns = explanation.map.shape
    panel.imshow(np.asarray(explanation.image), extent=(0, columns, rows, 0), aspect=_aspect(explanation))
    for row, column in explanation.marked:
        for colour, width in (("white", 3.5), (MARK, 1.8)):  # visible on light and on dark images
            panel.add_patch(_rectangle(column, row, colour, width))
    title = "what the image adds to its caption" if explanation.query is None else f"query: {_name(explanation.query)}"
    panel.set_title(_wrap(title), fontsize=9, parse_math=False)
    panel.set_xlabel(_wrap(explanation.caption or "no caption"), fontsize=9, parse_math=False)
    panel.set_xticks([])
    panel.set_yticks([])


def _draw_map(panel: Axes, explanation: Explanation, low: float, high: float) -> Any:
    rows, columns = explanation.map.shape
    colours = DIVERGING if low < 0 else SEQUENTIAL
    extent, aspect = (0, columns, rows, 0), _aspect(explanation)
    shown = panel.imshow(explanation.map, colours, vmin=low, vmax=high, extent=extent, aspect=aspect)
    lost = explanation.faithfulness
    panel.set_title(f"score {explanation.score:.3f}", fontsize=9)
    panel.set_xlabel(
        f"lost without the {lost.removed} marked patches: {lost.lost:.3f}\n"
        f"without {lost.removed} random ones: {lost.lost_at_random:.3f}, without all: {lost.lost_in_total:.3f}",
        fontsize=9,
    )
    panel.set_xticks(range(columns + 1), labels=[])
    panel.set_yticks(range(rows + 1), labels=[])
    panel.tick_params(length=0)
    panel.grid(color="white", linewidth=0.5)
    return shown


def _rectangle(column: int, row: int, colour: str, width: float) -> Any:
    patches = import_optional("matplotlib.patches", extra=EXTRA)
    return patches.Rectangle((column, row), 1, 1, fill=False, edgecolor=colour, linewidth=width)


def _aspect(explanation: Explanation) -> float:
    """Return height / width of a patch in pixels, so that the map has the shape of the image."""
    rows, columns = explanation.map.shape
    return float(explanation.image.height / rows / (explanation.image.width / columns))


def _name(query: Any) -> str:
    """Return the text of a query; an image is shown as `an image`, or by the name of its file."""
    if isinstance(query, str):
        return query
    if isinstance(query, Mapping):
        parts = [query.get("text"), query.get("image")]
        return " + ".join(_name(part) for part in parts if part is not None)
    return Path(query).name if isinstance(query, os.PathLike) else "an image"


def _wrap(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH_OF_TEXT, max_lines=LINES, placeholder=" ...")
    return "\n".join(lines)
