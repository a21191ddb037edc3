"""Tables of results for the command line, model cards and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADLINE = ("mrr@10", "ndcg@10", "recall@1", "recall@10", "recall@100")
_NAMES = {"mrr": "MRR", "ndcg": "NDCG", "recall": "Recall", "hit": "Hit", "map": "MAP"}


def metric_title(name: str) -> str:
    """Return the usual spelling of a metric: `mrr@10` becomes `MRR@10`."""
    stem, mark, cutoff = name.partition("@")
    return _NAMES.get(stem, stem) + mark + cutoff


def metrics_table(
    rows: Mapping[str, Mapping[str, float]], metrics: Sequence[str] | None = None, label: str = ""
) -> str:
    """Format metrics as a Markdown table whose columns are also aligned in a terminal.

    Args:
        rows: Metrics by row title.
        metrics: Metrics to show, in this order. Metrics missing from all rows are omitted; single missing values become
            a dash. By default the usual ones, or MRR, NDCG and Recall at each other cut-off.
        label: Title of the first column.

    Returns:
        The table, without a final newline.
    """
    chosen = _usual(rows) if metrics is None else metrics
    shown = [name for name in chosen if any(name in row for row in rows.values())]
    cells = [[label, *map(metric_title, shown)]]
    cells += [[title, *(f"{row[name]:.4f}" if name in row else "-" for name in shown)] for title, row in rows.items()]
    return text_table(cells)


def _usual(rows: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    cutoffs = (name.partition("@")[2] for row in rows.values() for name in row)
    found = {int(cutoff) for cutoff in cutoffs if cutoff.isdecimal()}
    if found <= {1, 10, 100}:
        return HEADLINE
    return [f"{stem}@{cutoff}" for cutoff in sorted(found) for stem in ("mrr", "ndcg", "recall")]


def text_table(cells: Sequence[Sequence[str]]) -> str:
    """Format rows of equal length as a Markdown table; the first row is the head, the first column has labels."""
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join("| " + " | ".join(_aligned(line, widths)) + " |" for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
