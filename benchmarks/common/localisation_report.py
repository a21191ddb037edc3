"""Result page and chart of the localisation benchmark."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.localisation_measures import AUCS, LOSSES, METHODS, TASKS
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from benchmarks.common.localisation_measures import Measurement


def make_page(measurements: Sequence[Measurement], scenes: int) -> str:
    """Generate the result page.

    Args:
        measurements: Measurements of all models.
        scenes: Number of scenes.

    Returns:
        The page in Markdown.
    """
    sections = [_section(task, [row for row in measurements if row.task == task]) for task in TASKS]
    return f"""# Localisation

Do the maps of `ciea_hf.explain` mark the objects that they should? Measured on {scenes} scenes of OpenMoji Scenes (test
split), which show four objects of which the caption names two. The builder of the scenes knows which pixels show which
object; patches that show both a wanted and another object, or little of an object, are left out.

"AUC objects" is the probability that a patch of a wanted object has a higher value than a patch of another object,
"AUC image" than any patch without a wanted object (chance is 0.5; mean over scenes with a 95 % interval). "Lost" is the
score lost when the tenth of the patches with the highest values is painted in the mean colour of the image, "at random"
when as many random patches are, "in total" when all are. Gates increase with the complement weights, so their AUC is
the same; neither depends on the query. CPU seconds per image include these measurements.

{"".join(sections)}![chart](localisation.png)
"""


def _section(task: str, measurements: Sequence[Measurement]) -> str:
    rows = [["model", "method", "AUC objects", "AUC image", *LOSSES, "CPU s"]]
    for row in measurements:
        cells = []
        for name in AUCS:
            low, high = row.intervals[name]
            cells.append(f"{row.means[name]:.2f} ({low:.2f} to {high:.2f})")
        cells += [f"{row.means[name]:.3f}" for name in LOSSES]
        rows.append([row.model, row.method, *cells, f"{row.means['seconds']:.2f}"])
    return f"## {task.capitalize()}\n\nWanted: {TASKS[task]}.\n\n{text_table(rows)}\n\n"


def draw(measurements: Sequence[Measurement]) -> Figure:
    """Draw the AUCs against other objects, in one panel per task.

    Args:
        measurements: Measurements of all models.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in measurements))
    methods = [method for method in METHODS if any(row.method == method for row in measurements)]
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, len(TASKS), sharey=True)
    width = 0.8 / len(models)
    for panel, (task, title) in zip(panels, TASKS.items(), strict=True):
        for number, model in enumerate(models):
            rows = [row for row in measurements if (row.task, row.model) == (task, model)]
            means = np.array([row.means["auc objects"] for row in rows])
            bounds = np.array([row.intervals["auc objects"] for row in rows]).T
            positions = np.array([methods.index(row.method) for row in rows]) + width * (number - (len(models) - 1) / 2)
            panel.bar(positions, means, width, yerr=np.abs(bounds - means), capsize=2, color=f"C{number}", label=model)
        panel.axhline(0.5, color="black", linestyle="--", linewidth=0.8)
        panel.set_xticks(range(len(methods)), [method.replace(" ", "\n") for method in methods], fontsize=8)
        panel.set_title(f"{task}\n{textwrap.fill(title, 40)}", fontsize=9)
    panels[0].set(ylabel="AUC against other objects", ylim=(0, 1.02))
    panels[0].legend(fontsize=8)
    return figure
