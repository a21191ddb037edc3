"""Table and chart of the ablation, generated from the records of finished runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.variants import GROUPS, VARIANTS
from ciea_hf.evaluation.report import text_table
from ciea_hf.evaluation.significance import randomisation_test
from ciea_hf.miniature.text import INITIAL_STD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from benchmarks.common.records import Record
    from benchmarks.common.variants import Variant

COLUMNS = (("image", "mrr@10"), ("image", "ndcg@10"), ("image", "recall@1"), ("text", "mrr@10"))
HEAD = ("group", "system", "seeds", "MRR@10 image", "NDCG@10 image", "Recall@1 image", "MRR@10 text")
CIEA_GROUPS = ("extractor weights", "variant of L_comp", "lambda")  # variants of CIEA with the same language model
EMPTY = "-"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        group: Title of its group.
        title: Title of the row.
        seeds: Number of runs.
        means: Mean over seeds of each of `COLUMNS`.
        deviations: Sample standard deviations over seeds; NaN for a single run.
        difference: MRR@10 of image queries minus that of the baseline, over common seeds; None if there are none.
        p_value: p-value of a paired randomisation test over queries, with values averaged over these seeds.
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
    """Summarise the runs.

    Args:
        records: Records of finished runs.
        groups: Groups of the table, each a mapping from row title to variant.
        variants: Variants by name, with their baselines.

    Returns:
        One row for each row of the groups that has a run.
    """
    runs: dict[str, dict[int, Record]] = {}
    for record in records:
        runs.setdefault(record.variant, {})[record.seed] = record
    rows = []
    for group, titles in groups.items():
        for title, name in titles.items():
            if name in runs:
                baseline = variants[name].baseline
                rows.append(_row(group, title, runs[name], {} if name == baseline else runs.get(baseline, {})))
    return rows


def _row(group: str, title: str, runs: Mapping[int, Record], baseline: Mapping[int, Record]) -> Row:
    values = np.array([[record.metrics[kind][metric] for kind, metric in COLUMNS] for record in runs.values()])
    deviations = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(COLUMNS), np.nan)
    means = values.mean(axis=0).tolist()
    row = Row(group, title, len(runs), tuple(means), tuple(deviations.tolist()))
    shared = sorted(runs.keys() & baseline.keys())
    if not shared:
        return row
    own = np.mean([runs[seed].reciprocal_ranks for seed in shared], axis=0)
    reference = np.mean([baseline[seed].reciprocal_ranks for seed in shared], axis=0)
    difference = float((own - reference).mean())
    return replace(row, difference=difference, p_value=randomisation_test(reference, own))


def spread(mean: float, deviation: float) -> str:
    """Format a mean and the standard deviation over seeds, which is omitted for a single run (NaN)."""
    return f"{mean:.3f}" if np.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def rows_against_ciea(records: Sequence[Record]) -> list[Row]:
    """Summarise the variants of CIEA with CIEA instead of MARVEL as the baseline."""
    groups = {name: GROUPS[name] for name in CIEA_GROUPS}
    variants = {name: replace(variant, baseline="ciea") for name, variant in VARIANTS.items()}
    return make_rows(records, groups, variants)


def make_table(rows: Sequence[Row], baseline: str = "MARVEL") -> str:
    """Format the rows as a Markdown table. The first row of each group shows the title of the group."""
    lines = [[*HEAD, f"vs {baseline}", "p"]]
    previous = None
    for row in rows:
        cells = [spread(mean, deviation) for mean, deviation in zip(row.means, row.deviations, strict=True)]
        difference = EMPTY if row.difference is None else f"{row.difference:+.3f}"
        p_value = EMPTY if row.p_value is None else f"{row.p_value:.4f}"
        group = "" if row.group == previous else row.group
        lines.append([group, row.title, str(row.seeds), *cells, difference, p_value])
        previous = row.group
    return text_table(lines)


def make_page(rows: Sequence[Row], ciea_rows: Sequence[Row], name: str, steps: int, queries: int) -> str:
    """Generate the result page.

    Args:
        rows: Rows of the main table.
        ciea_rows: Rows of the second table, with CIEA as the baseline. It is omitted without a comparison.
        name: Name of the result files.
        steps: Training steps after the warm-up.
        queries: Number of image queries.

    Returns:
        The page in Markdown.
    """
    compared = any(row.difference is not None for row in ciea_rows)
    against_ciea = f"\nVariants of CIEA compared with CIEA:\n\n{make_table(ciea_rows, 'CIEA')}\n" if compared else ""
    return f"""# Ablation

Results on OpenMoji Scenes, test split, {queries} image queries. For each seed, all systems with the same language model
start from the same warm-up of this language model and train for {steps} steps with 64 queries each. The table shows
mean ± standard deviation over seeds. "vs MARVEL" is the difference in MRR@10 of image queries to MARVEL with the same
language model, over the seeds that both systems have. The p-values are from paired randomisation tests over queries,
whose values are averaged over these seeds; they are not corrected for multiple comparisons. BERT, BART and GPT-2 had
initial weights with a standard deviation of 0.02, with which such small models hardly learn; the miniature models of
today start from {INITIAL_STD} (see the [recipe](recipe.md)).

{make_table(rows)}
{against_ciea}
![chart]({name}.png)

The configuration of each row is in [{name}.yaml]({name}.yaml).
"""


def draw_chart(rows: Sequence[Row]) -> Figure:
    """Draw MRR@10 of image queries: one bar with its standard deviation per row, and a line at the mean of MARVEL."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(row.group for row in rows))
    positions = [number + groups.index(row.group) for number, row in enumerate(rows)]
    figure = Figure(figsize=(8, 1.2 + 0.32 * (len(rows) + len(groups))))
    axes = figure.subplots()
    means = [row.means[0] for row in rows]
    deviations = np.nan_to_num([row.deviations[0] for row in rows])
    colours = [f"C{groups.index(row.group)}" for row in rows]
    axes.barh(positions, means, color=colours, alpha=0.8)
    axes.errorbar(means, positions, xerr=[row.deviations[0] for row in rows], fmt="none", ecolor="black", capsize=3)
    for position, row, deviation in zip(positions, rows, deviations, strict=True):
        axes.text(row.means[0] + deviation + 0.005, position, f"{row.means[0]:.3f}", va="center", fontsize=8)
    for group in groups:
        first = next(position for position, row in zip(positions, rows, strict=True) if row.group == group)
        axes.text(0, first - 0.75, group, fontsize=9, fontweight="bold", va="center")
    marvel = next((row for row in rows if row.title == "MARVEL"), None)
    if marvel is not None:
        axes.axvline(marvel.means[0], color="black", linestyle="--", linewidth=0.8)
        above = axes.get_xaxis_transform()
        axes.text(marvel.means[0], 1.0, "MARVEL", ha="center", va="bottom", fontsize=8, transform=above)
    axes.set_yticks(positions, [f"{row.title}  ({row.seeds})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(mean + deviation for mean, deviation in zip(means, deviations, strict=True)))
    axes.set_xlabel("MRR@10 of image queries ± standard deviation (number of seeds in parentheses)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
