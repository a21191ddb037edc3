"""Tests of the complementarity benchmark: scores, kinds of patches, and replaced weights."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.common import complementarity_report, interventions, measures
from ciea_hf.data.builders.openmoji.build import build_benchmark, plan_benchmark
from ciea_hf.data.builders.openmoji.glyphs import CONCEPT_COUNT, CONCEPT_SEED
from ciea_hf.data.builders.openmoji.scenes import compose_scene, glyph_atlas
from tests.support.helpers import tiny_model, toy_image
from tests.support.toy_retrieval import toy_dataset

SIZES = {"train": 5, "dev": 5, "test": 40}


def test_roc_auc_equals_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 5, 20), rng.integers(0, 4, 30)
    pairs = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    assert measures.roc_auc(positives, negatives) == pytest.approx(np.mean(pairs))
    assert measures.roc_auc(np.array([2.0]), np.array([1.0, 0.0])) == 1.0


def test_concept_scores_in_closed_form() -> None:
    labels = np.array([[measures.HIDDEN, 0], [measures.CAPTIONED, 0], [measures.ABSENT, 0]])
    scores = measures.concept_scores(np.array([[0.5, 9], [0.25, 9], [0.75, 9]]), labels)
    assert [values.tolist() for values in scores] == [[0.0], [0.0], [1.0], [-0.5], [-0.25]]
    with pytest.raises(ValueError, match="at least one concept must be captioned"):
        measures.concept_scores(np.zeros((2, 2)), np.zeros((2, 2), int))


def test_object_maps_match_the_objects_in_the_scenes() -> None:
    scenes = [document for document in plan_benchmark(0, SIZES)["test"].documents if document.is_scene]
    rows = build_benchmark(0, SIZES)["test"].corpus.select(range(len(scenes)))
    atlas = glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)
    empty, rng = [np.zeros_like(glyphs) for glyphs in atlas], np.random.default_rng((0, 2))
    maps = measures.object_maps(scenes)
    for scene, row, objects in zip(scenes, rows, maps, strict=True):
        background = compose_scene(scene.objects, rng, empty)
        changed = (np.asarray(row["image"]).astype(int) != background).any(axis=-1)
        assert set(np.unique(objects)) == {-1, *scene.objects}
        assert changed[objects >= 0].mean() > 0.99
        assert changed[objects < 0].mean() < 0.05, "only the semi-transparent edges of glyphs"


def test_patches_are_classified_by_their_objects() -> None:
    labels = np.array([[measures.CAPTIONED, measures.HIDDEN, measures.ABSENT]])
    maps = np.full((1, 4, 4), -1)
    maps[0, 0, 0] = 0  # a quarter of the first patch
    maps[0, :2, 2] = 1
    maps[0, 2, 1], maps[0, 3, 0] = 0, 1  # mixed
    assert measures.patch_kinds(maps, labels, 4).tolist() == [
        [measures.CAPTIONED, measures.HIDDEN, -1, measures.ABSENT]
    ]


def test_weights_are_replaced_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    processed = model.processor(text=["a cat"], images=[toy_image()])
    seen: list[torch.Tensor] = []

    def weights() -> torch.Tensor:
        with torch.no_grad():
            return cast("torch.Tensor", model(**processed, output_patches=True).complement_weights[0])

    def evaluate_and_observe(*_: object) -> SimpleNamespace:
        seen.append(weights())
        return SimpleNamespace(by_kind={"image": {"mrr@10": 0.5}})

    own = weights()
    monkeypatch.setattr(interventions, "evaluate", evaluate_and_observe)
    assert list(interventions.scores_by_weights(model, toy_dataset()).values()) == [0.5] * 4
    same, mean, shuffled, inverted = seen
    torch.testing.assert_close(same, own)
    torch.testing.assert_close(mean, own.mean().expand(len(own)))
    torch.testing.assert_close(shuffled.sort().values, own.sort().values)
    assert inverted.argmax() == own.argmin() != inverted.argmin()
    torch.testing.assert_close(weights(), own)


@pytest.mark.parametrize("use_extractor", [True, False])
def test_complementarity_measures_a_model(use_extractor: bool) -> None:
    data, plan = build_benchmark(0, {**SIZES, "test": 100})["test"], plan_benchmark(0, {**SIZES, "test": 100})["test"]
    measurement = measures.measure(tiny_model(use_extractor=use_extractor), data, plan)
    assert len(measurement.scores) == (3 if use_extractor else 2)
    assert bool(measurement.weights) is bool(measurement.interventions) is use_extractor
    measurements = {"some": measurement}
    page = complementarity_report.page(measurements)
    assert ("Complement weights" in page) is use_extractor
    buffer = BytesIO()
    complementarity_report.draw(measurements).savefig(buffer, format="png")
    assert Image.open(buffer).width > 400
