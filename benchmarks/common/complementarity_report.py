"""Result page and chart of the complementarity benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.interventions import INTERVENTIONS
from benchmarks.common.measures import TEMPLATE, weight_aucs
from ciea_hf.evaluation.report import text_table
from ciea_hf.evaluation.significance import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from benchmarks.common.measures import Measurement

AUCS = {"hidden": "hidden vs absent", "captioned": "captioned vs absent", "hidden_captioned": "hidden vs captioned"}
GAPS = {"hidden_gap": "gap hidden", "captioned_gap": "gap captioned"}


def page(measurements: Mapping[str, Measurement]) -> str:
    """Generate the result page.

    Args:
        measurements: Measurements by title of the model.

    Returns:
        The page in Markdown.
    """
    rows = [["model", "embedding", *(f"AUC {title}" for title in AUCS.values()), *GAPS.values()]]
    concepts = 0
    for model, measurement in measurements.items():
        for kind, scores in measurement.scores.items():
            means = [float(getattr(scores, name).mean()) for name in (*AUCS, *GAPS)]
            rows.append([model, kind, *(f"{mean:.3f}" for mean in means)])
            concepts = max(concepts, len(scores.hidden))
    query = TEMPLATE.format(names="the ...")
    return f"""# Complementarity

For each of {concepts} concepts, a query ("{query}") is compared with the test scenes of OpenMoji Scenes. A
hidden concept is visible in the scene but not in its caption. AUC is the probability that a scene of the first kind
scores above a scene of the second kind, averaged over concepts; chance is 0.5. Gaps are differences in mean cosine
similarity to scenes without the concept. For an image-only embedding, the language model encodes the patches without
the caption; without an extractor there are only projected patches. No system was trained on queries with a single
concept. The error bars in the chart are 95 % intervals over concepts.

{text_table(rows)}

{_weights_section(measurements)}
![chart](complementarity.png)
"""


def _weights_section(measurements: Mapping[str, Measurement]) -> str:
    rows = [["model", "captioned", "hidden", "background", "AUC hidden vs captioned", "AUC background vs captioned"]]
    for model, measurement in measurements.items():
        weights = measurement.weights
        if weights:
            cells = [f"{weights[kind].mean():.3f} ± {weights[kind].std():.3f}" for kind in rows[0][1:4]]
            rows.append([model, *cells, *(f"{auc:.3f}" for auc in weight_aucs(weights).values())])
    if len(rows) == 1:
        return ""
    return f"""Complement weights of patches that show captioned objects, hidden objects, or only background (mean ±
standard deviation over patches), and the probability that the weight of a hidden or background patch is above that of a
captioned patch:

{text_table(rows)}

MRR@10 of image queries when the weights of the trained model are replaced in the evaluation:

{_interventions_table(measurements)}
"""


def _interventions_table(measurements: Mapping[str, Measurement]) -> str:
    scores = {model: item.interventions for model, item in measurements.items() if item.interventions}
    rows = [[name, *(f"{mrr[name]:.3f}" for mrr in scores.values())] for name in INTERVENTIONS]
    return text_table([["weights", *scores], *rows])


def draw(measurements: Mapping[str, Measurement]) -> Figure:
    """Draw the AUCs with bootstrap intervals over concepts, and the distributions of the complement weights.

    Args:
        measurements: Measurements by title of the model.

    Returns:
        Figure with one panel for the AUCs and one panel for each model with an extractor.
    """
    from matplotlib.figure import Figure

    weights = {model: item.weights for model, item in measurements.items() if item.weights}
    figure = Figure(figsize=(9 + 3.5 * len(weights), 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, 1 + len(weights), width_ratios=[2, *(1 for _ in weights)]))
    _draw_aucs(panels[0], measurements)
    for panel, (model, by_kind) in zip(panels[1:], weights.items(), strict=True):
        _draw_weights(panel, model, by_kind)
    return figure


def _draw_aucs(panel: Axes, measurements: Mapping[str, Measurement]) -> None:
    bars = {}
    for model, measurement in measurements.items():
        for kind, scores in measurement.scores.items():
            bars[f"{model}\n{kind}"] = scores
    for number, (name, title) in enumerate(AUCS.items()):
        values = [getattr(scores, name) for scores in bars.values()]
        means = np.array([value.mean() for value in values])
        bounds = np.array([bootstrap_interval(value) for value in values]).T
        positions = np.arange(len(bars)) + 0.27 * (number - 1)
        panel.bar(positions, means, 0.25, yerr=np.abs(bounds - means), capsize=2, color=f"C{number}", label=title)
    panel.axhline(0.5, color="black", linestyle="--", linewidth=0.8)
    panel.set_xticks(range(len(bars)), list(bars), fontsize=8)
    panel.set(ylabel="ROC-AUC, mean over concepts", ylim=(0, 1.02), title="single-concept queries")
    panel.legend(fontsize=8, ncols=len(AUCS), loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _draw_weights(panel: Axes, model: str, weights: Mapping[str, NDArray[np.float32]]) -> None:
    joined = np.concatenate(list(weights.values()))
    bins = np.linspace(joined.min(), joined.max(), 60).tolist()
    for kind, patches in weights.items():
        panel.hist(patches, bins, density=True, histtype="step", label=f"{kind} ({patches.mean():.3f})")
    panel.set(title=f"complement weights of patches, {model}", xlabel="weight", yticks=[])
    panel.legend(fontsize=8)
