"""Tests of the localisation benchmark: scenes, AUCs of maps, records and page."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from benchmarks.common import localisation_measures, localisation_report
from benchmarks.common.localisation_scenes import Scene, coverage, sample_scenes
from ciea_hf.data.builders.openmoji.build import build_benchmark, plan_benchmark, vocabulary
from ciea_hf.explain import Explanation, Faithfulness
from tests.support.helpers import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"train": 5, "dev": 5, "test": 40}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return sample_scenes(build_benchmark(0, SIZES)["test"], plan_benchmark(0, SIZES)["test"], 6, seed=1)


def test_scenes_show_what_their_captions_and_queries_name(scenes: list[Scene]) -> None:
    names = vocabulary()
    assert len(scenes) == 6
    for scene in scenes:
        assert set(np.unique(scene.objects)) == {-1, *scene.hidden, *scene.captioned}
        assert all(names[number] in scene.caption for number in scene.captioned)
        assert not any(names[number] in scene.caption for number in scene.hidden)
        assert names[scene.target] in scene.query
        assert scene.target in scene.hidden
        assert scene.query_image.size == scene.image.size


def test_coverage_is_the_share_of_each_patch() -> None:
    shown = np.zeros((4, 6), dtype=bool)
    shown[0, 0] = shown[2:, 4:] = True
    assert coverage(shown, (2, 3)).tolist() == [[0.25, 0, 0], [0, 0, 1]]


def explanation(values: list[list[float]]) -> Explanation:
    lost = Faithfulness(1, 0.5, 0.1, 0.9)
    return Explanation(np.array(values, np.float32), "occlusion", Image.new("RGB", (8, 8)), "a", "b", 0.7, lost)


def test_aucs_in_closed_form() -> None:
    wanted, objects = np.zeros((4, 8), dtype=bool), np.zeros((4, 8), dtype=bool)
    wanted[:2, :2] = objects[:2, :2] = True  # patch 0 shows a wanted object
    objects[:2, 2:4] = True  # patch 1 another one
    wanted[2:, 0] = objects[2:, :2] = True  # patch 4 both, which is left out
    values = [[0.5, 0.9, 0.1, 0.2], [9.0, 0.3, 0.6, 0.1]]
    assert localisation_measures.map_aucs(explanation(values), wanted, objects) == pytest.approx((0.0, 4 / 6))
    nothing = np.zeros_like(objects)
    assert np.isnan(localisation_measures.map_aucs(explanation(values), nothing, objects)).all()


@pytest.mark.parametrize(
    ("settings", "methods"),
    [
        ({"extractor_weights": "gate"}, {"complement weights", "gates"}),
        ({}, {"complement weights"}),
        ({"extractor_weights": "uniform"}, set()),
        ({"use_extractor": False}, set()),
    ],
)
def test_the_methods_of_a_model(settings: dict[str, object], methods: set[str]) -> None:
    found = set(localisation_measures.methods_of(tiny_model(**settings)))  # type: ignore[arg-type]
    assert found == {"integrated gradients", "the same, not smoothed", "occlusion", *methods}


def test_a_model_is_measured_saved_and_reported(scenes: list[Scene], tmp_path: Path) -> None:
    model = tiny_model(vision="resnet", image_seq_length=16)
    lines: list[str] = []
    found = localisation_measures.measure_model(model, "some", scenes, lines.append)
    assert len(found) == len(lines) == 4 * len(localisation_measures.TASKS)
    record = localisation_measures.Record("data", len(scenes), 0, found)
    record.write(tmp_path / "some.json")
    assert localisation_measures.Record.read(tmp_path / "some.json") == record
    total = {row.task: row.means["lost in total"] for row in found if row.method == "complement weights"}
    assert all(row.means["lost in total"] == total[row.task] for row in found)
    page = localisation_report.make_page(found, len(scenes))
    assert page.count("| some ") == len(found)
    assert "complement weights" in page
    buffer = BytesIO()
    localisation_report.draw(found).savefig(buffer, format="png")
    assert Image.open(buffer).width > 400
