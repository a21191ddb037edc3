"""Figures of explanations: panels, marks, and one colour scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from ciea_hf.explain import Explanation, Faithfulness, draw_explanations, explanation_image, save_explanations
from tests.support.helpers import toy_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explanation(values: list[list[float]], method: str = "occlusion", **fields: Any) -> Explanation:
    faithfulness = Faithfulness(removed=1, lost=0.25, lost_at_random=0.0625, lost_in_total=0.5)
    given: dict[str, Any] = {"image": toy_image(size=(64, 32)), "caption": "a red cat", "query": None, **fields}
    return Explanation(np.array(values, np.float32), method, score=0.75, faithfulness=faithfulness, **given)


def texts(figure: Figure) -> str:
    found = [panel.get_title() + "\n" + panel.get_xlabel() + "\n" + panel.get_ylabel() for panel in figure.axes]
    return "\n".join(found)


def test_all_maps_of_a_figure_share_one_symmetric_scale() -> None:
    rows = [explanation([[0.1, -0.2]]), explanation([[0.4, 0.0]])]
    figure = draw_explanations(rows)
    maps = [figure.axes[position].images[0] for position in (1, 3)]
    for shown, row in zip(maps, rows, strict=True):
        np.testing.assert_array_equal(shown.get_array(), row.map)
        assert shown.get_clim() == pytest.approx((-0.4, 0.4))
    assert figure.axes[-1].get_ylabel() == "score lost when 2 x 2 patches are hidden"


@pytest.mark.parametrize("method", ["weights", "gates"])
def test_weights_and_gates_are_drawn_from_0_to_1(method: str) -> None:
    figure = draw_explanations(explanation([[0.5, 0.6]], method))
    assert figure.axes[1].images[0].get_clim() == (0.0, 1.0)
    assert method.removesuffix("s") in figure.axes[-1].get_ylabel()


def test_the_patches_of_the_highest_values_are_marked_on_the_image() -> None:
    found = explanation([[0.1, 0.3, -0.5, 0.0], [0.0, 0.0, 0.2, 0.9]])
    assert found.marked == [(1, 3)]
    figure = draw_explanations(found)
    marks = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert {mark.get_xy() for mark in marks} == {(3, 1)}
    assert tuple(figure.axes[0].images[0].get_extent()) == (0, 4, 2, 0)
    assert figure.axes[0].get_aspect() == 1.0  # patches of 16 x 16 pixels


def test_query_caption_and_faithfulness_are_written() -> None:
    assert "what the image adds to its caption" in texts(draw_explanations(explanation([[1.0]])))
    shown = texts(
        draw_explanations(explanation([[1.0]], query={"text": "costs $5 or $6_x$", "image": Path("a/b.png")}))
    )
    assert "query: costs $5 or $6_x$ + b.png" in shown
    assert "score 0.750" in shown
    assert "without the 1 marked patches: 0.250" in shown
    assert "without 1 random ones: 0.062, without all: 0.500" in shown
    assert "no caption" in texts(draw_explanations(explanation([[1.0]], query=toy_image(), caption=None)))


def test_any_text_and_a_map_of_zeros_can_be_drawn(tmp_path: Path) -> None:
    found = explanation([[0.0, 0.0]], caption="$\\frac{ " + "long " * 200, query="$x^")
    assert explanation_image(found, dpi=40).mode == "RGB"
    save_explanations(found, tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height


def test_explanations_of_different_methods_have_no_common_scale() -> None:
    with pytest.raises(ValueError, match="must be of one method to share a colour scale; got gates, occlusion"):
        draw_explanations([explanation([[1.0]]), explanation([[1.0]], "gates")])
    with pytest.raises(ValueError, match="got none"):
        draw_explanations([])
