"""Scenes: small images of several objects on a coloured background, composed by seed."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.data.builders.openmoji.glyphs import choose_concepts, render_glyphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SCENE_SIZE = 112  # px, square
GRID = 3  # cells along each side
OBJECT_SIZES = (28, 31, 34, 37, 40)  # px
JITTER = 4  # px: maximum offset of an object from the middle of its cell
BACKGROUND_RANGE = (0.55, 1.0)  # per colour channel; pale, so that outlines remain visible


@lru_cache(maxsize=2)
def glyph_atlas(count: int, seed: int) -> tuple[NDArray[np.float32], ...]:
    """Draw the chosen concepts at every object size: one (concepts, size, size, 4) array per size."""
    concepts = choose_concepts(count, seed)
    return tuple(render_glyphs(concepts, size) for size in OBJECT_SIZES)


def compose_scene(
    objects: Sequence[int], rng: np.random.Generator, atlas: Sequence[NDArray[np.float32]]
) -> NDArray[np.uint8]:
    """Compose one scene.

    Each object is near the middle of its own cell of a 3 x 3 grid, at a random size, and mirrored at random.

    Args:
        objects: Indices of concepts, at most nine.
        rng: Random generator; the same state gives the same image.
        atlas: Result of [`glyph_atlas`].

    Returns:
        (112, 112, 3) RGB.

    Raises:
        ValueError: If there are more objects than cells.
    """
    cells = GRID * GRID
    if len(objects) > cells:
        raise ValueError(f"`objects` must be at most {cells}; got {len(objects)}")
    canvas = _background(rng)
    locations = rng.permutation(cells)[: len(objects)]
    sizes = rng.integers(len(atlas), size=len(objects))
    shifts = rng.integers(-JITTER, JITTER + 1, size=(len(objects), 2))
    mirrored = rng.random(len(objects)) < 0.5
    for concept, location, size, shift, mirror in zip(objects, locations, sizes, shifts, mirrored, strict=True):
        glyph = atlas[size][concept]
        centre = (np.array(divmod(int(location), GRID)) + 0.5) * SCENE_SIZE / GRID + shift
        _blend(canvas, glyph[:, ::-1] if mirror else glyph, centre)
    return np.rint(canvas * 255).astype(np.uint8)


def _background(rng: np.random.Generator) -> NDArray[np.float32]:
    low, high = BACKGROUND_RANGE
    top, bottom = rng.uniform(low, high, size=(2, 1, 3)).astype(np.float32)
    slope = np.linspace(0, 1, SCENE_SIZE, dtype=np.float32)[:, None, None]
    return np.repeat(top + 0.5 * slope * (bottom - top), SCENE_SIZE, axis=1)


def _blend(canvas: NDArray[np.float32], glyph: NDArray[np.float32], centre: NDArray[np.float64]) -> None:
    """Blend a glyph with premultiplied colours into the canvas, shifted so that it is inside."""
    side = glyph.shape[0]
    row, column = np.clip(np.rint(centre - side / 2).astype(int), 0, SCENE_SIZE - side)
    window = canvas[row : row + side, column : column + side]
    window *= 1 - glyph[..., 3:]
    window += glyph[..., :3]
    np.minimum(window, 1, out=window)
