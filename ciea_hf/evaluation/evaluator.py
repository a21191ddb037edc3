"""Evaluate a model, or a run, on a retrieval data set."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ciea_hf.evaluation.metrics import DEFAULT_KS, Run, metrics_by_kind, ranking_metrics
from ciea_hf.evaluation.report import metrics_table
from ciea_hf.retrieval.corpus import encode_corpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries
from ciea_hf.retrieval.index import FlatIndex

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import numpy as np
    import torch

    from ciea_hf.data import RetrievalDataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        dataset: Name of the data set.
        split: Its split.
        metrics: Metric name to mean over the judged queries, as ``ranking_metrics`` gives it.
        by_kind: The same for the queries of each kind of positive: ``"image"``, ``"text"``, ``"mixed"``.
        counts: Number of ``documents`` and ``queries``, and of queries by kind (``"queries/image"`` and so on).
        seconds: Wall time of each step: ``documents``, ``queries``, ``search``.
        settings: What was evaluated how: the documents' part, depth of the run and so on.
        run: Query id to document id to score.
    """

    dataset: str
    split: str
    metrics: dict[str, float]
    by_kind: dict[str, dict[str, float]]
    counts: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    run: Run = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the run, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "run"}

    def table(self, metrics: Sequence[str] | None = None) -> str:
        """Return a Markdown table: one row over all queries, one for each kind of positive."""
        rows = {f"all ({self.counts['queries']})": self.metrics}
        rows |= {f"{kind} ({self.counts[f'queries/{kind}']})": values for kind, values in self.by_kind.items()}
        return metrics_table(rows, metrics, label="queries")


def evaluate(
    model: Encoder,
    dataset: RetrievalDataset,
    *,
    content: str | DocumentView = "full",
    ks: Iterable[int] = DEFAULT_KS,
    top_k: int | None = None,
    options: EncodingOptions | None = None,
    folder: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
) -> EvaluationResult:
    """Encode a corpus and its judged queries, search exactly, and score the rankings.

    Args:
        model: A CIEAModel, a SentenceTransformer, or anything with ``encode_query`` and ``encode_document``.
        dataset: What to search, and what is relevant.
        content: ``"full"``, ``"caption"`` (pictures dropped) or ``"image"`` (captions of pictures dropped), or a view
            made by hand.
        ks: Cut-offs of the metrics.
        top_k: Depth of the run; 100 by default, or the highest cut-off if that is more.
        options: How documents are encoded.
        folder: Where embeddings are kept, so that an interrupted evaluation goes on; in memory if None.
        device: Where scores are computed; the model's device by default.

    Returns:
        Metrics overall and by kind of positive, the run, and the seconds of each step.

    Raises:
        ValueError: If ``top_k`` is less than the highest cut-off, or nothing is judged.

    Example:
        >>> evaluate(model, load_retrieval_dataset("my-data", split="test")).metrics["mrr@10"]  # doctest: +SKIP
        0.5312
    """
    cutoffs = sorted(set(ks))
    depth = run_depth(cutoffs, top_k)
    options = options or EncodingOptions()
    view = content if isinstance(content, DocumentView) else DocumentView(dataset, content)
    queries = judged_queries(dataset)
    clock = _Clock()
    corpus = encode_corpus(model, dataset, folder, view, options)
    clock.lap("documents")
    embeddings = encode_queries(model, list(queries.values()), options.batch_size)
    clock.lap("queries")
    index = FlatIndex(corpus.shards, corpus.ids, device=device or getattr(model, "device", None))
    run = as_run(list(queries), index.ids, *index.search(embeddings, depth))
    clock.lap("search")
    settings = {"content": view.content, "top_k": depth, "dtype": options.dtype, "batch_size": options.batch_size}
    return score_run(run, dataset, cutoffs, clock.seconds, settings)


def run_depth(ks: Sequence[int], top_k: int | None = None) -> int:
    """Return how many documents a run keeps for each query: 100, or what the highest cut-off needs, if None is said.

    Raises:
        ValueError: If ``top_k`` is less than the highest cut-off.
    """
    depth = max(100, *ks) if top_k is None else top_k
    if ks and depth < max(ks):
        raise ValueError(f"top_k must be at least the highest cut-off {max(ks)}; got {depth}")
    return depth


def score_run(
    run: Run,
    dataset: RetrievalDataset,
    ks: Iterable[int] = DEFAULT_KS,
    seconds: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
) -> EvaluationResult:
    """Score a run that any system has made.

    Args:
        run: Query id to document id to score.
        dataset: What is relevant, and of which kind.
        ks: Cut-offs of the metrics.
        seconds: Wall time of the steps that made the run.
        settings: How the run was made.

    Returns:
        Metrics overall and by kind of positive.

    Raises:
        ValueError: If the data set judges nothing.
    """
    kinds = dataset.query_kinds()
    judged = [query for query, judgements in dataset.qrels.items() if judgements]
    counts = {"documents": len(dataset.corpus), "queries": len(judged)}
    counts |= {f"queries/{kind}": number for kind, number in sorted(Counter(kinds.values()).items())}
    return EvaluationResult(
        dataset=dataset.name,
        split=dataset.split,
        metrics=ranking_metrics(run, dataset.qrels, ks),
        by_kind=metrics_by_kind(run, dataset.qrels, kinds, ks),
        counts=counts,
        seconds=seconds or {},
        settings=settings or {},
        run=run,
    )


def judged_queries(dataset: RetrievalDataset) -> dict[str, str]:
    """Return id and text of the queries that have judgements, in the data set's order.

    Raises:
        ValueError: If there is none.
    """
    rows = dataset.queries.select_columns(["id", "text"])[:]
    queries = {name: text for name, text in zip(rows["id"], rows["text"], strict=True) if dataset.qrels.get(name)}
    if not queries:
        raise ValueError(f"{dataset.name} ({dataset.split}): no query has a judgement")
    missing = [name for name, judgements in dataset.qrels.items() if judgements and name not in queries]
    if missing:
        logger.warning("%d judged queries have no text (%s ...): they score 0", len(missing), missing[0])
    return queries


def as_run(
    queries: Sequence[str], documents: Sequence[str], scores: np.ndarray, positions: np.ndarray
) -> dict[str, dict[str, float]]:
    """Name the rows and columns of a search result.

    Args:
        queries: Query ids, one for each row.
        documents: Document ids by position in the index.
        scores: (queries, k).
        positions: (queries, k).

    Returns:
        Query id to document id to score.
    """
    return {
        query: {documents[position]: score for position, score in zip(places, values, strict=True)}
        for query, places, values in zip(queries, positions.tolist(), scores.tolist(), strict=True)
    }


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
