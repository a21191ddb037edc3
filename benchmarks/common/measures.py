"""Measures of complementarity: what the image part scores highly, and which patches the extractor weighs most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.common.interventions import scores_by_weights
from ciea_hf.data.builders.openmoji.glyphs import CONCEPT_COUNT, CONCEPT_SEED, choose_concepts
from ciea_hf.data.builders.openmoji.scenes import compose_scene, glyph_atlas
from ciea_hf.data.builders.openmoji.templates import IMAGE_QUERIES, join_names
from ciea_hf.explain import embed_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.data.builders.openmoji.build import PlannedDocument, SplitPlan

    Array = NDArray[Any]

ABSENT, CAPTIONED, HIDDEN = range(3)
KINDS = {"captioned": CAPTIONED, "hidden": HIDDEN, "background": ABSENT}  # of patches
TEMPLATE = IMAGE_QUERIES.common[1]
SEED, TEST_SPLIT = 0, 2  # what the embedded benchmark draws its test scenes from
COVERED = 0.25  # share of a patch that an object must cover


class Scores(NamedTuple):
    """How a kind of embedding tells scenes that show a concept from scenes that do not, concept by concept.

    Attributes:
        captioned: ROC-AUC of scenes that caption the concept against scenes without it, (concepts,).
        hidden: ROC-AUC of scenes that hide it against scenes without it, (concepts,).
        hidden_captioned: ROC-AUC of scenes that hide it against scenes that caption it, (concepts,).
        captioned_gap: Mean cosine of scenes that caption it minus that of scenes without it, (concepts,).
        hidden_gap: The same for scenes that hide it.
    """

    captioned: Array
    hidden: Array
    hidden_captioned: Array
    captioned_gap: Array
    hidden_gap: Array


class Measured(NamedTuple):
    """What was measured of a model.

    Attributes:
        scores: Kind of embedding to its scores.
        weights: Kind of patch to the complement weights of all such patches; empty without an extractor.
        interventions: What [`scores_by_weights`] gives; empty without an extractor.
    """

    scores: dict[str, Scores]
    weights: dict[str, Array]
    interventions: dict[str, float]


def measure(model: Any, dataset: RetrievalDataset, plan: SplitPlan) -> Measured:
    """Measure a model on the scenes of the embedded benchmark's test split.

    Args:
        model: A CIEA model.
        dataset: The split.
        plan: Its plan: what each scene holds and which of it its caption names.
    """
    scenes = [document for document in plan.documents if document.is_scene]
    rows = dataset.corpus.select(range(len(scenes)))
    if rows["id"][:] != [scene.id for scene in scenes]:
        raise ValueError("the plan is not that of the data set: their scenes differ")
    parts = embed_images(model, rows["image"][:], [scene.text for scene in scenes])
    names = [concept.name for concept in choose_concepts(CONCEPT_COUNT, CONCEPT_SEED)]
    texts = [TEMPLATE.format(names=join_names([name])) for name in names]
    queries = model.encode_query(texts, convert_to_tensor=True, normalize_embeddings=True).float()
    kinds = {"whole document": parts.documents, "image part, projected": parts.projected}
    if parts.weights is not None:
        kinds["image part, extracted"] = parts.extracted
    labels = concept_labels(scenes)
    scores = {kind: concept_scores((rows @ queries.T).cpu().numpy(), labels) for kind, rows in kinds.items()}
    if parts.weights is None:
        return Measured(scores, {}, {})
    covers = patch_kinds(object_maps(scenes), labels, int(parts.weights.shape[1]))
    weights = parts.weights.float().cpu().numpy()
    by_kind = {name: weights[covers == kind] for name, kind in KINDS.items()}
    return Measured(scores, by_kind, scores_by_weights(model, dataset))


def concept_labels(scenes: Sequence[PlannedDocument]) -> Array:
    """Say what each concept is in each scene, (scenes, concepts): absent, captioned or hidden."""
    labels = np.full((len(scenes), CONCEPT_COUNT), ABSENT)
    for row, scene in zip(labels, scenes, strict=True):
        row[list(scene.objects)] = HIDDEN
        row[list(scene.captioned)] = CAPTIONED
    return labels


def concept_scores(cosines: Array, labels: Array) -> Scores:
    """Compare the scores of scenes concept by concept; concepts that lack one of the three kinds are left out.

    Args:
        cosines: Of image parts and concept queries, (scenes, concepts).
        labels: What [`concept_labels`] gives.
    """
    rows = []
    for column, label in zip(cosines.T, labels.T, strict=True):
        captioned, hidden, absent = (column[label == kind] for kind in (CAPTIONED, HIDDEN, ABSENT))
        if len(captioned) and len(hidden) and len(absent):
            gaps = captioned.mean() - absent.mean(), hidden.mean() - absent.mean()
            rows.append((roc_auc(captioned, absent), roc_auc(hidden, absent), roc_auc(hidden, captioned), *gaps))
    if not rows:
        raise ValueError("no concept is captioned in one scene, hidden in another and absent from a third")
    return Scores(*np.array(rows, dtype=np.float64).T)


def roc_auc(positives: Array, negatives: Array) -> float:
    """Probability that a positive scores above a negative, a tie counting half."""
    ordered = np.sort(negatives)
    below, not_above = (np.searchsorted(ordered, positives, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(negatives)))


def object_maps(scenes: Sequence[PlannedDocument]) -> Array:
    """Draw the test scenes again, each pixel with its object's number: (scenes, height, width), -1 for background.

    The objects are painted in colours that no background has, at the places that the same random numbers give.
    """
    rng = np.random.default_rng((SEED, TEST_SPLIT))
    atlas = [_painted(glyphs) for glyphs in glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)]
    drawn = np.stack([compose_scene(scene.objects, rng, atlas) for scene in scenes])
    return np.where(drawn[..., 1] == 0, drawn[..., 0].astype(int) - 1, -1)


def _painted(glyphs: Array) -> Array:
    """Glyphs of one opaque colour: red is the number and one, green and blue are 0."""
    painted = np.zeros_like(glyphs)
    solid = glyphs[..., 3] > 0.5
    numbers = np.broadcast_to(np.arange(1, len(glyphs) + 1)[:, None, None], solid.shape)
    painted[..., 0][solid] = numbers[solid] / 255
    painted[..., 3][solid] = 1
    return painted


def patch_kinds(maps: Array, labels: Array, patches: int) -> Array:
    """Say what each patch shows, (scenes, P): captioned or hidden objects, or background; -1 if it is mixed.

    Args:
        maps: What [`object_maps`] gives.
        labels: What [`concept_labels`] gives.
        patches: P, a square number that divides the picture.
    """
    side = round(patches**0.5)
    scenes, height, width = maps.shape
    shown = np.where(
        maps < 0, ABSENT, np.take_along_axis(labels, maps.clip(min=0).reshape(scenes, -1), 1).reshape(maps.shape)
    )
    tiles = shown.reshape(scenes, side, height // side, side, width // side)
    captioned, hidden = ((tiles == kind).mean(axis=(2, 4)).reshape(scenes, patches) for kind in (CAPTIONED, HIDDEN))
    kinds = np.full((scenes, patches), -1)
    kinds[(captioned == 0) & (hidden == 0)] = ABSENT
    kinds[(captioned >= COVERED) & (hidden == 0)] = CAPTIONED
    kinds[(hidden >= COVERED) & (captioned == 0)] = HIDDEN
    return kinds


def weight_aucs(weights: dict[str, Array]) -> dict[str, float]:
    """Probability that a patch of a hidden object, or of background, weighs more than one of a captioned object."""
    return {kind: roc_auc(weights[kind], weights["captioned"]) for kind in ("hidden", "background")}
