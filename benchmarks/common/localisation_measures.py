"""Measures of the localisation benchmark: how well maps mark objects, and what the score loses without the patches."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.localisation_scenes import coverage
from benchmarks.common.measures import COVERED, roc_auc
from ciea_hf.evaluation.significance import bootstrap_interval
from ciea_hf.explain import explain
from ciea_hf.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.common.localisation_scenes import Scene
    from ciea_hf.explain import Explanation

TASKS = {
    "text query": "the object that a text query names and the caption does not",
    "image query": "the object that an image query shows and the caption does not name",
    "no query": "the objects that the caption does not name",
}
METHODS: dict[str, dict[str, Any]] = {
    "integrated gradients": {"method": "integrated_gradients"},
    "the same, not smoothed": {"method": "integrated_gradients", "smooth": False},
    "occlusion": {"method": "occlusion"},
    "complement weights": {"method": "weights"},
    "gates": {"method": "gates"},
}
AUCS = ("auc objects", "auc image")
LOSSES = ("lost", "lost at random", "lost in total")
_DIGITS = 5


@dataclass(frozen=True)
class Measurement:
    """Measures of one model, method and task, averaged over scenes.

    Attributes:
        model: Title of the model.
        task: A key of [`TASKS`].
        method: A key of [`METHODS`].
        means: Means by name: the AUC of the wanted patches against those of other objects and against the rest of the
            image; the score lost without the marked patches, as many random ones, and all; CPU seconds per image.
        intervals: Bootstrap intervals of the AUCs over scenes.
    """

    model: str
    task: str
    method: str
    means: dict[str, float]
    intervals: dict[str, list[float]]


@dataclass(frozen=True)
class Record:
    """Measurements of one model, as they are saved.

    Attributes:
        data: Fingerprint of the evaluation data.
        scenes: Number of scenes.
        seed: Random seed of their choice.
        measurements: The measurements.
    """

    data: str
    scenes: int
    seed: int
    measurements: list[Measurement]

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        write_json(path, asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record that [`write`] has written."""
        content = json.loads(path.read_text(encoding="utf-8"))
        content["measurements"] = [Measurement(**row) for row in content["measurements"]]
        return cls(**content)


def measure_model(model: Any, title: str, scenes: Sequence[Scene], say: Callable[[str], None]) -> list[Measurement]:
    """Measure all methods that a model has on all tasks.

    Args:
        model: A CIEA model.
        title: Title of the model.
        scenes: Scenes.
        say: Called with a line about each finished measurement.

    Returns:
        The measurements.
    """
    measurements = []
    for method in methods_of(model):
        for task in TASKS:
            rows = [_measure_scene(model, scene, task, method) for scene in scenes]
            found = _summary(rows)
            measurements.append(Measurement(title, task, method, *found))
            say(f"{title}, {task}, {method}: {found[0]}")
    return measurements


def methods_of(model: Any) -> Iterator[str]:
    """Yield the methods that a model has."""
    weights = model.config.extractor_weights if model.config.use_extractor else "uniform"
    missing = {"uniform": ("weights", "gates"), "complement": ("gates",), "gate": ()}[weights]
    for name, options in METHODS.items():
        if options["method"] not in missing:
            yield name


def _measure_scene(model: Any, scene: Scene, task: str, method: str) -> dict[str, float]:
    query = {"text query": scene.query, "image query": scene.query_image, "no query": None}[task]
    start = time.process_time()
    found = explain(model, scene.image, scene.caption, query, **METHODS[method])
    seconds = time.process_time() - start
    wanted = scene.hidden if query is None else (scene.target,)
    objects, rest = map_aucs(found, np.isin(scene.objects, wanted), scene.objects >= 0)
    lost = found.faithfulness
    losses = (lost.lost, lost.lost_at_random, lost.lost_in_total)
    return dict(zip((*AUCS, *LOSSES, "seconds"), (objects, rest, *losses, seconds), strict=True))


def map_aucs(explanation: Explanation, wanted: NDArray[np.bool_], objects: NDArray[np.bool_]) -> tuple[float, float]:
    """Compute how well a map separates wanted objects from others.

    Patches that show a wanted and another object, or little of an object, are left out.

    Args:
        explanation: Explanation with the map.
        wanted: True for pixels of wanted objects, (height, width).
        objects: True for pixels of any object, (height, width).

    Returns:
        Probabilities that a patch of a wanted object has a higher value than one of another object, and than any patch
        without a wanted object; NaN if there are no such patches.
    """
    grid = explanation.map.shape[0], explanation.map.shape[1]
    inside, beside = coverage(wanted, grid), coverage(objects & ~wanted, grid)
    positives = explanation.map[(inside >= COVERED) & (beside == 0)]
    aucs = []
    for others in ((beside >= COVERED) & (inside == 0), inside == 0):
        negatives = explanation.map[others]
        aucs.append(roc_auc(positives, negatives) if len(positives) and len(negatives) else float("nan"))
    return aucs[0], aucs[1]


def _summary(rows: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    means, intervals = {}, {}
    for name, values in columns.items():
        valid = values[~np.isnan(values)]
        means[name] = round(float(np.median(valid) if name == "seconds" else valid.mean()), _DIGITS)
        if name in AUCS:
            intervals[name] = [round(end, _DIGITS) for end in bootstrap_interval(valid)]
    return means, intervals
