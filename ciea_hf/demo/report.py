"""What the demonstration shows: its table, and queries worth a picture."""

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


class Row(NamedTuple):
    """A system's line of the table: its metrics by kind of query, and the seconds of its training."""

    title: str
    by_kind: Mapping[str, Mapping[str, float]]
    seconds: float


def demo_table(rows: Sequence[Row]) -> str:
    """Lay out the systems: image queries, then text queries, then seconds of training."""
    head = ["system", *(f"{metric_title(name)} {kind}" for kind in KINDS for name in METRICS), "training s"]
    lines = [
        [row.title, *(f"{row.by_kind[kind][name]:.3f}" for kind in KINDS for name in METRICS), f"{row.seconds:.0f}"]
        for row in rows
    ]
    return text_table([head, *lines])


OUTCOMES = ("found first", "found, but not first", "not found")


def example_queries(dataset: RetrievalDataset, run: Run, shown: int = 5) -> dict[str, str]:
    """Choose queries for the picture: of the image queries, the first found, the first found late, the first missed.

    Args:
        dataset: The split that is searched.
        run: What the model ranked.
        shown: How many hits the picture shows.

    Returns:
        Outcome to query id, in the order of `OUTCOMES`; an outcome that does not occur is left out.
    """
    kinds = dataset.query_kinds()
    chosen: dict[str, str] = {}
    for query, judged in dataset.qrels.items():
        if kinds[query] == "image":
            hits = rank_documents(run.get(query, {}))[:shown]
            rank = next((rank for rank, hit in enumerate(hits, start=1) if judged.get(hit, 0) > 0), None)
            chosen.setdefault(OUTCOMES[2 if rank is None else min(rank, 2) - 1], query)
    return {outcome: chosen[outcome] for outcome in OUTCOMES if outcome in chosen}
