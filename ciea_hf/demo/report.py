"""What the demonstration shows: its table, and queries worth a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ciea_hf.evaluation.report import metric_title, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ciea_hf.data import RetrievalDataset

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


def example_queries(dataset: RetrievalDataset, count: int = 3) -> list[str]:
    """Choose queries for the picture: evenly spread image queries that exactly one document answers.

    Args:
        dataset: The split that is searched.
        count: How many.

    Returns:
        Texts of the queries.
    """
    kinds = dataset.query_kinds()
    texts = dict(zip(dataset.queries["id"], dataset.queries["text"], strict=True))
    single = [query for query, judged in dataset.qrels.items() if kinds[query] == "image" and len(judged) == 1]
    return [texts[single[i * len(single) // count]] for i in range(count)]
