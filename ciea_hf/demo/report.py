"""Results of the demonstration: the table, and the queries of the contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ciea_hf.evaluation.metrics import rank_documents
from ciea_hf.evaluation.report import metric_title, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation.metrics import Run

METRICS = ("mrr@10", "ndcg@10", "recall@1", "recall@10")
KINDS = ("image", "text")
OUTCOMES = ("found first", "found, but not first", "not found")


class Row(NamedTuple):
    """Row of the table: metrics by kind of query, and training time in seconds."""

    title: str
    by_kind: Mapping[str, Mapping[str, float]]
    seconds: float


def demo_table(rows: Sequence[Row]) -> str:
    """Format the table: image queries, text queries, and training time."""
    columns = [(kind, name) for kind in KINDS for name in METRICS]
    cells = [["system", *(f"{metric_title(name)} {kind}" for kind, name in columns), "training s"]]
    for row in rows:
        values = [f"{row.by_kind[kind][name]:.3f}" for kind, name in columns]
        cells.append([row.title, *values, f"{row.seconds:.0f}"])
    return text_table(cells)


def example_queries(dataset: RetrievalDataset, run: Run, shown: int = 5) -> dict[str, str]:
    """Choose image queries for the contact sheet: the first one of each outcome.

    Args:
        dataset: Searched split.
        run: Rankings of the model.
        shown: Number of hits on the contact sheet.

    Returns:
        Query id by outcome, in the order of `OUTCOMES`, without outcomes that do not occur.
    """
    kinds = dataset.query_kinds()
    chosen: dict[str, str] = {}
    for query, judged in dataset.qrels.items():
        if kinds.get(query) == "image":
            hits = rank_documents(run.get(query, {}))[:shown]
            chosen.setdefault(_outcome(hits, judged), query)
    return {outcome: chosen[outcome] for outcome in OUTCOMES if outcome in chosen}


def _outcome(hits: Sequence[str], judged: Mapping[str, int]) -> str:
    first, later, missed = OUTCOMES
    relevant = [judged.get(hit, 0) > 0 for hit in hits]
    if not any(relevant):
        return missed
    return first if relevant[0] else later
