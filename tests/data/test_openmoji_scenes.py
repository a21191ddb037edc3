"""Glyphs, and the scenes composed of them."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pytest

from ciea_hf.data.builders.openmoji.glyphs import choose_concepts, draw_glyph, pool, render_glyphs
from ciea_hf.data.builders.openmoji.scenes import OBJECT_SIZES, SCENE_SIZE, compose_scene, glyph_atlas


def test_concepts_are_chosen_by_seed() -> None:
    chosen = choose_concepts()
    assert len(chosen) == len({c.character for c in chosen}) == 150
    assert list(chosen) == sorted(chosen)
    assert set(choose_concepts(150, 1)) != set(chosen)
    with pytest.raises(ValueError, match="got 100000"):
        choose_concepts(100_000)


def test_names_are_plain_and_share_no_word() -> None:
    words = Counter(word for concept in pool() for word in concept.name.split())
    assert [word for word, count in words.items() if count > 1] == []
    assert all(word.isalpha() and word.islower() for word in words)
    assert all(len(concept.name.split()) <= 2 for concept in pool())


def test_names_are_those_of_unicode() -> None:
    for concept in pool():
        assert unicodedata.name(concept.character).lower().removeprefix("black ").removesuffix(" face") == concept.name


def test_every_glyph_is_drawn_in_colour_and_no_two_look_alike() -> None:
    glyphs = render_glyphs(choose_concepts(), 16)
    alpha = glyphs[..., 3].mean(axis=(1, 2))
    assert alpha.min() > 0.1
    assert (glyphs[..., :3] <= glyphs[..., 3:] + 1 / 255).all()  # colours are multiplied by alpha
    on_grey = (glyphs[..., :3] + 0.8 * (1 - glyphs[..., 3:])).reshape(len(glyphs), -1)
    squares = (on_grey**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * on_grey @ on_grey.T
    np.fill_diagonal(distances, np.inf)
    assert np.sqrt(distances.min() / on_grey.shape[1]) > 0.1


def test_a_character_without_a_glyph_is_named() -> None:
    with pytest.raises(ValueError, match="SPACE"):
        draw_glyph(" ")


def test_a_scene_is_a_function_of_objects_and_random_state() -> None:
    atlas = glyph_atlas(150, 0)
    one, two = (compose_scene([3, 1, 4, 15], np.random.default_rng(9), atlas) for _ in range(2))
    other = compose_scene([3, 1, 4, 16], np.random.default_rng(9), atlas)
    assert one.shape == (SCENE_SIZE, SCENE_SIZE, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_every_object_is_drawn_whole_in_its_own_cell() -> None:
    """With white squares as glyphs, the number of white pixels shows whether one is cut off or missing."""
    atlas = [np.ones((9, size, size, 4), dtype=np.float32) for size in OBJECT_SIZES[:1]]
    for seed in range(20):
        scene = compose_scene([seed % 9], np.random.default_rng(seed), atlas)
        assert (scene == 255).all(axis=2).sum() == OBJECT_SIZES[0] ** 2
    full = compose_scene(range(9), np.random.default_rng(0), atlas)
    assert 0.8 * 9 * OBJECT_SIZES[0] ** 2 < (full == 255).all(axis=2).sum() <= 9 * OBJECT_SIZES[0] ** 2


def test_objects_are_mirrored_about_half_the_time() -> None:
    glyph = np.zeros((1, 28, 28, 4), dtype=np.float32)
    glyph[..., :14, 3] = 1  # the left half is black
    left = 0
    for seed in range(200):
        columns = np.flatnonzero(
            (compose_scene([0], np.random.default_rng(seed), [glyph]) == 0).all(axis=(2)).any(axis=0)
        )
        cell = columns.mean() % (SCENE_SIZE / 3)
        left += cell < SCENE_SIZE / 6
    assert 60 < left < 140


def test_more_objects_than_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 9; got 10"):
        compose_scene(range(10), np.random.default_rng(0), glyph_atlas(150, 0))
