"""The ablation's table and chart, drawn from whatever runs are finished."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.variants import GROUPS, VARIANTS
from ciea_hf.evaluation.report import text_table
from ciea_hf.evaluation.significance import randomisation_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from benchmarks.common.records import Record
    from benchmarks.common.variants import Variant

COLUMNS = (("image", "mrr@10"), ("image", "ndcg@10"), ("image", "recall@1"), ("text", "mrr@10"))
HEAD = ("group", "system", "seeds", "MRR@10 image", "NDCG@10 image", "Recall@1 image", "MRR@10 text")
FORMS = ("extractor's weights", "form of L_comp", "lambda")
NONE = "-"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        group: Its part of the table.
        title: What it is.
        seeds: Number of runs.
        means: Mean over seeds of each of `COLUMNS`.
        deviations: Sample standard deviation over seeds; NaN of a single run.
        difference: MRR@10 of image queries minus that of the baseline, over the seeds that both have; None without any.
        p_value: Of the paired randomisation test over queries, their values averaged over these seeds.
    """

    group: str
    title: str
    seeds: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    difference: float | None = None
    p_value: float | None = None


def make_rows(
    records: Sequence[Record],
    groups: Mapping[str, Mapping[str, str]] = GROUPS,
    variants: Mapping[str, Variant] = VARIANTS,
) -> list[Row]:
    """Summarise the runs: one row for each row of the groups that has any."""
    runs: dict[str, dict[int, Record]] = {}
    for record in records:
        runs.setdefault(record.variant, {})[record.seed] = record
    return [
        _row(group, title, runs[name], {} if name == baseline else runs.get(baseline, {}))
        for group, titles in groups.items()
        for title, name in titles.items()
        if name in runs
        for baseline in [variants[name].baseline]
    ]


def _row(group: str, title: str, mine: Mapping[int, Record], baseline: Mapping[int, Record]) -> Row:
    values = np.array([[record.metrics[kind][metric] for kind, metric in COLUMNS] for record in mine.values()])
    deviations = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(COLUMNS), np.nan)
    means = values.mean(axis=0).tolist()
    shared = sorted(mine.keys() & baseline.keys())
    if not shared:
        return Row(group, title, len(mine), tuple(means), tuple(deviations.tolist()))
    here, there = (np.mean([side[seed].reciprocal_ranks for seed in shared], axis=0) for side in (mine, baseline))
    difference = float((here - there).mean())
    return Row(
        group, title, len(mine), tuple(means), tuple(deviations.tolist()), difference, randomisation_test(there, here)
    )


def spread(mean: float, deviation: float) -> str:
    """Write a mean and the deviation over seeds, which a single run (NaN) has not."""
    return f"{mean:.3f}" if np.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def rows_against_ciea(records: Sequence[Record]) -> list[Row]:
    """Summarise the forms of CIEA with one language model, compared with CIEA and not with MARVEL."""
    groups = {name: GROUPS[name] for name in FORMS}
    return make_rows(records, groups, {name: replace(variant, baseline="ciea") for name, variant in VARIANTS.items()})


def make_table(rows: Sequence[Row], baseline: str = "MARVEL") -> str:
    """Lay the rows out as a Markdown table; a group's name stands in its first row."""
    lines = [[*HEAD, f"vs {baseline}", "p"]]
    for before, row in zip([None, *rows], rows, strict=False):
        cells = [spread(mean, deviation) for mean, deviation in zip(row.means, row.deviations, strict=True)]
        difference = NONE if row.difference is None else f"{row.difference:+.3f}"
        p_value = NONE if row.p_value is None else f"{row.p_value:.4f}"
        group = "" if before is not None and before.group == row.group else row.group
        lines.append([group, row.title, str(row.seeds), *cells, difference, p_value])
    return text_table(lines)


def make_page(rows: Sequence[Row], forms: Sequence[Row], name: str, steps: int, queries: int) -> str:
    """Write the tables, of all rows and of the forms of CIEA, as the Markdown page of a name."""
    compared = any(row.difference is not None for row in forms)
    against_ciea = f"\nThe forms of CIEA against CIEA itself:\n\n{make_table(forms, 'CIEA')}\n" if compared else ""
    return f"""# Ablation

OpenMoji Scenes, test split, {queries} image queries. Every system starts from the same warm-up of its language model
(one for each seed) and trains for {steps} steps of 64 queries. Mean ± standard deviation over seeds; a row states how
many it has. "vs MARVEL" is the difference in MRR@10 of image queries from MARVEL with the same language model, over the
seeds that both have, with the p-value of a paired randomisation test over queries (their values averaged over these
seeds), not corrected for the number of rows.

{make_table(rows)}
{against_ciea}
![chart]({name}.png)

The resolved configuration of every row is in [{name}.yaml]({name}.yaml).
"""


def draw_chart(rows: Sequence[Row]) -> Figure:
    """Draw MRR@10 of image queries: a bar for each row, its deviation, MARVEL's mean as a line."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(row.group for row in rows))
    places = [number + groups.index(row.group) for number, row in enumerate(rows)]
    figure = Figure(figsize=(8, 1.2 + 0.32 * (len(rows) + len(groups))))
    axes = figure.subplots()
    means = [row.means[0] for row in rows]
    deviations = np.nan_to_num([row.deviations[0] for row in rows])
    colours = [f"C{groups.index(row.group)}" for row in rows]
    axes.barh(places, means, color=colours, alpha=0.8)
    axes.errorbar(means, places, xerr=[row.deviations[0] for row in rows], fmt="none", ecolor="black", capsize=3)
    for place, row, deviation in zip(places, rows, deviations, strict=True):
        axes.text(row.means[0] + deviation + 0.005, place, f"{row.means[0]:.3f}", va="center", fontsize=8)
    for group in groups:
        first = next(place for place, row in zip(places, rows, strict=True) if row.group == group)
        axes.text(0, first - 0.75, group, fontsize=9, fontweight="bold", va="center")
    marvel = next((row for row in rows if row.title == "MARVEL"), None)
    if marvel is not None:
        axes.axvline(marvel.means[0], color="black", linestyle="--", linewidth=0.8)
        above = axes.get_xaxis_transform()
        axes.text(marvel.means[0], 1.0, "MARVEL", ha="center", va="bottom", fontsize=8, transform=above)
    axes.set_yticks(places, [f"{row.title}  ({row.seeds})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(mean + deviation for mean, deviation in zip(means, deviations, strict=True)))
    axes.set_xlabel("MRR@10 of image queries ± standard deviation (number of seeds in brackets)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
