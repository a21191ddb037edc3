"""Results of the demonstration: the table, and the queries of the contact sheet."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ciea_hf.evaluation.metrics import rank_documents
from ciea_hf.evaluation.report import metric_title, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation.metrics import Run

METRICS = ("mrr@10", "recall@1", "recall@10")
KINDS = ("image", "text")
IMAGE_QUERIES = ("own image", "image + text", "same caption")
OUTCOMES = ("found first", "found, but not first", "not found")


class Row(NamedTuple):
    """Row of the table: metrics by kind of query, training time in seconds, and measures with images as queries."""

    title: str
    by_kind: Mapping[str, Mapping[str, float]]
    seconds: float
    image_queries: Mapping[str, float] = MappingProxyType({})


def demo_table(rows: Sequence[Row]) -> str:
    """Format the table: metrics by kind of query, measures with images as queries, and training time."""
    columns = [(kind, name) for kind in KINDS for name in METRICS]
    cells = [["system", *(f"{metric_title(name)} {kind}" for kind, name in columns), *IMAGE_QUERIES, "training s"]]
    for row in rows:
        values = [f"{row.by_kind[kind][name]:.3f}" for kind, name in columns]
        values += [f"{row.image_queries[name]:.3f}" if name in row.image_queries else "-" for name in IMAGE_QUERIES]
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
