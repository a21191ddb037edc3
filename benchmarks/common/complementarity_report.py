"""The page and the picture of the measures of complementarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.interventions import INTERVENTIONS
from benchmarks.common.measures import TEMPLATE, weight_aucs
from ciea_hf.evaluation.report import text_table
from ciea_hf.evaluation.significance import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from benchmarks.common.measures import Measured

AUCS = {"hidden": "hidden vs absent", "captioned": "captioned vs absent", "hidden_captioned": "hidden vs captioned"}
GAPS = {"hidden_gap": "gap hidden", "captioned_gap": "gap captioned"}


def page(found: Mapping[str, Measured]) -> str:
    """Write the measures of all models as a Markdown page."""
    rows = [["model", "embedding", *(f"AUC {title}" for title in AUCS.values()), *GAPS.values()]]
    for model, measured in found.items():
        for kind, scores in measured.scores.items():
            values = (float(getattr(scores, name).mean()) for name in (*AUCS, *GAPS))
            rows.append([model, kind, *(f"{value:.3f}" for value in values)])
    concepts = max(len(scores.hidden) for measured in found.values() for scores in measured.scores.values())
    query = TEMPLATE.format(names="the ...")
    return f"""# Complementarity

Each of {concepts} concepts is a query ("{query}") against the test scenes of OpenMoji Scenes.
AUC is the probability that a scene of the first kind scores above one of the second, averaged over concepts: 0.5 is
chance. A hidden concept is shown and not captioned. Gaps are differences of mean cosines to scenes without the concept.
The image part is the language model over the patches alone, without the caption; a system without an extractor has only
projected patches. Queries of one concept occur in no system's training. Intervals in the picture: 95 % over concepts.

{text_table(rows)}

{_weights_section(found)}
![picture](complementarity.png)
"""


def _weights_section(found: Mapping[str, Measured]) -> str:
    rows = [["model", "captioned", "hidden", "background", "AUC hidden vs captioned", "AUC background vs captioned"]]
    for model, measured in found.items():
        if measured.weights:
            means = (
                f"{measured.weights[kind].mean():.3f} ± {measured.weights[kind].std():.3f}" for kind in rows[0][1:4]
            )
            rows.append([model, *means, *(f"{auc:.3f}" for auc in weight_aucs(measured.weights).values())])
    if len(rows) == 1:
        return ""
    return f"""Complement weights of patches that show captioned objects, hidden objects or background alone (mean ±
standard deviation over patches), and how often a patch of the one kind weighs more than one of a captioned object:

{text_table(rows)}

Do the weights matter to the trained model? MRR@10 of image queries when others stand in their place at evaluation:

{_interventions_table(found)}
"""


def _interventions_table(found: Mapping[str, Measured]) -> str:
    changed = {model: measured.interventions for model, measured in found.items() if measured.interventions}
    head = ["weights", *changed]
    return text_table([head, *([name, *(f"{mrr[name]:.3f}" for mrr in changed.values())] for name in INTERVENTIONS)])


def draw(found: Mapping[str, Measured]) -> Figure:
    """Draw the AUCs with their bootstrap intervals over concepts, and the distributions of complement weights."""
    from matplotlib.figure import Figure

    weighed = {model: measured.weights for model, measured in found.items() if measured.weights}
    figure = Figure(figsize=(9 + 3.5 * len(weighed), 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, 1 + len(weighed), width_ratios=[2, *(1 for _ in weighed)]))
    bars = [(f"{model}\n{kind}", s) for model, measured in found.items() for kind, s in measured.scores.items()]
    for number, (name, title) in enumerate(AUCS.items()):
        values = [getattr(scores, name) for _, scores in bars]
        means = np.array([value.mean() for value in values])
        bounds = np.array([bootstrap_interval(value) for value in values]).T
        places = np.arange(len(bars)) + 0.27 * (number - 1)
        panels[0].bar(places, means, 0.25, yerr=np.abs(bounds - means), capsize=2, color=f"C{number}", label=title)
    panels[0].axhline(0.5, color="black", linestyle="--", linewidth=0.8)
    panels[0].set_xticks(range(len(bars)), [label for label, _ in bars], fontsize=8)
    panels[0].set(ylabel="ROC-AUC, mean over concepts", ylim=(0, 1.02), title="single-concept queries")
    panels[0].legend(fontsize=8, ncols=len(AUCS), loc="upper center", bbox_to_anchor=(0.5, -0.13))
    for panel, (model, weights) in zip(panels[1:], weighed.items(), strict=True):
        joined = np.concatenate(list(weights.values()))
        bins = np.linspace(joined.min(), joined.max(), 60)
        for kind, patches in weights.items():
            panel.hist(patches, bins, density=True, histtype="step", label=f"{kind} ({patches.mean():.3f})")
        panel.set(title=f"complement weights of patches, {model}", xlabel="weight", yticks=[])
        panel.legend(fontsize=8)
    return figure
