"""Measures of complementarity: scores of image-only embeddings, and complement weights of patches."""

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
KINDS = {"captioned": CAPTIONED, "hidden": HIDDEN, "background": ABSENT}  # kinds of patches
TEMPLATE = IMAGE_QUERIES.common[1]
SEED, TEST_SPLIT = 0, 2  # random seed and split index that the embedded benchmark draws its test scenes with
COVERED = 0.25  # minimum share of a patch that objects of one kind must cover


class Scores(NamedTuple):
    """How well a kind of embedding separates scenes with and without each concept.

    Attributes:
        captioned: ROC-AUC of scenes that caption the concept versus scenes without it, (concepts,).
        hidden: ROC-AUC of scenes where it is hidden versus scenes without it, (concepts,).
        hidden_captioned: ROC-AUC of scenes where it is hidden versus scenes that caption it, (concepts,).
        captioned_gap: Mean cosine of scenes that caption it minus that of scenes without it, (concepts,).
        hidden_gap: Mean cosine of scenes where it is hidden minus that of scenes without it, (concepts,).
    """

    captioned: Array
    hidden: Array
    hidden_captioned: Array
    captioned_gap: Array
    hidden_gap: Array


class Measurement(NamedTuple):
    """Measurement of one model.

    Attributes:
        scores: Scores by kind of embedding.
        weights: Complement weights of all patches, by kind of patch; empty without an extractor.
        interventions: Result of [`scores_by_weights`]; empty without an extractor.
    """

    scores: dict[str, Scores]
    weights: dict[str, Array]
    interventions: dict[str, float]


def measure(model: Any, dataset: RetrievalDataset, plan: SplitPlan) -> Measurement:
    """Measure a model on the scenes of the embedded benchmark's test split.

    Args:
        model: A CIEA model.
        dataset: Test split.
        plan: Plan of the split: the objects of each scene, and which of them its caption names.

    Returns:
        The measurement.

    Raises:
        ValueError: If the scenes of the plan and the data set differ, or no concept has scenes of all three kinds.
    """
    scenes = [document for document in plan.documents if document.is_scene]
    rows = dataset.corpus.select(range(len(scenes)))
    if rows["id"][:] != [scene.id for scene in scenes]:
        raise ValueError("the plan does not belong to the data set: their scenes differ")
    embeddings = embed_images(model, rows["image"][:], [scene.text for scene in scenes])
    names = [concept.name for concept in choose_concepts(CONCEPT_COUNT, CONCEPT_SEED)]
    texts = [TEMPLATE.format(names=join_names([name])) for name in names]
    queries = model.encode_query(texts, convert_to_tensor=True, normalize_embeddings=True).float()
    kinds = {"full document": embeddings.documents, "image-only, projected": embeddings.projected}
    if embeddings.weights is not None:
        kinds["image-only, extracted"] = embeddings.extracted
    labels = concept_labels(scenes)
    scores = {}
    for kind, vectors in kinds.items():
        scores[kind] = concept_scores((vectors @ queries.T).cpu().numpy(), labels)
    if embeddings.weights is None:
        return Measurement(scores, {}, {})
    shown = patch_kinds(object_maps(scenes), labels, int(embeddings.weights.shape[1]))
    weights = embeddings.weights.float().cpu().numpy()
    by_kind = {name: weights[shown == kind] for name, kind in KINDS.items()}
    return Measurement(scores, by_kind, scores_by_weights(model, dataset))


def concept_labels(scenes: Sequence[PlannedDocument]) -> Array:
    """Return whether each concept is absent, captioned or hidden in each scene, (scenes, concepts)."""
    labels = np.full((len(scenes), CONCEPT_COUNT), ABSENT)
    for row, scene in zip(labels, scenes, strict=True):
        row[list(scene.objects)] = HIDDEN
        row[list(scene.captioned)] = CAPTIONED
    return labels


def concept_scores(cosines: Array, labels: Array) -> Scores:
    """Compare the scores of scenes for each concept.

    Concepts without a captioned, a hidden or an absent scene are skipped.

    Args:
        cosines: Cosine similarities of scenes and concept queries, (scenes, concepts).
        labels: Result of [`concept_labels`].

    Returns:
        The scores.

    Raises:
        ValueError: If all concepts are skipped.
    """
    rows = []
    for column, label in zip(cosines.T, labels.T, strict=True):
        captioned, hidden, absent = (column[label == kind] for kind in (CAPTIONED, HIDDEN, ABSENT))
        if len(captioned) and len(hidden) and len(absent):
            gaps = captioned.mean() - absent.mean(), hidden.mean() - absent.mean()
            rows.append((roc_auc(captioned, absent), roc_auc(hidden, absent), roc_auc(hidden, captioned), *gaps))
    if not rows:
        raise ValueError(
            "at least one concept must be captioned in one scene, hidden in another and absent from a third"
        )
    return Scores(*np.array(rows, dtype=np.float64).T)


def roc_auc(positives: Array, negatives: Array) -> float:
    """Return the probability that a positive scores above a negative. A tie counts half."""
    ordered = np.sort(negatives)
    below, not_above = (np.searchsorted(ordered, positives, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(negatives)))


def object_maps(scenes: Sequence[PlannedDocument]) -> Array:
    """Return the object of each pixel of the test scenes.

    The scenes are drawn again from the same random numbers, so that the objects have the same positions, but each
    object is painted in one colour that encodes its number and does not occur in backgrounds.

    Args:
        scenes: Planned scenes of the test split, in their order.

    Returns:
        Object numbers, (scenes, height, width); -1 for background.
    """
    rng = np.random.default_rng((SEED, TEST_SPLIT))
    atlas = [_painted(glyphs) for glyphs in glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)]
    drawn = np.stack([compose_scene(scene.objects, rng, atlas) for scene in scenes])
    return np.where(drawn[..., 1] == 0, drawn[..., 0].astype(int) - 1, -1)


def _painted(glyphs: Array) -> Array:
    """Paint glyphs in one opaque colour: red is the number plus one; green and blue are 0."""
    painted = np.zeros_like(glyphs)
    solid = glyphs[..., 3] > 0.5
    numbers = np.broadcast_to(np.arange(1, len(glyphs) + 1)[:, None, None], solid.shape)
    painted[..., 0][solid] = numbers[solid] / 255
    painted[..., 3][solid] = 1
    return painted


def patch_kinds(maps: Array, labels: Array, patches: int) -> Array:
    """Classify the patches by the objects that they show.

    Args:
        maps: Result of [`object_maps`].
        labels: Result of [`concept_labels`].
        patches: Number P of patches, a square number; its root divides the side of the image.

    Returns:
        Kinds of patches, (scenes, P): captioned or hidden objects, or only background; -1 for mixed patches and patches
        with little of an object.
    """
    side = round(patches**0.5)
    scenes, height, width = maps.shape
    object_kinds = np.take_along_axis(labels, maps.clip(min=0).reshape(scenes, -1), 1).reshape(maps.shape)
    shown = np.where(maps < 0, ABSENT, object_kinds)
    tiles = shown.reshape(scenes, side, height // side, side, width // side)
    captioned, hidden = ((tiles == kind).mean(axis=(2, 4)).reshape(scenes, patches) for kind in (CAPTIONED, HIDDEN))
    kinds = np.full((scenes, patches), -1)
    kinds[(captioned == 0) & (hidden == 0)] = ABSENT
    kinds[(captioned >= COVERED) & (hidden == 0)] = CAPTIONED
    kinds[(hidden >= COVERED) & (captioned == 0)] = HIDDEN
    return kinds


def weight_aucs(weights: dict[str, Array]) -> dict[str, float]:
    """Return the probabilities that a hidden or a background patch has a larger weight than a captioned patch."""
    return {kind: roc_auc(weights[kind], weights["captioned"]) for kind in ("hidden", "background")}
