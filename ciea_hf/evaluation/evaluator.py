"""Evaluation of a model, or of a run, on a retrieval data set."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ciea_hf.evaluation.metrics import DEFAULT_KS, Run, metrics_by_kind, ranking_metrics
from ciea_hf.evaluation.report import metrics_table
from ciea_hf.retrieval.building import encode_corpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import torch

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.results import SearchResult


@dataclass(frozen=True)
class EvaluationResult:
    """Result of an evaluation.

    Attributes:
        dataset: Name of the data set.
        split: Evaluated split.
        metrics: Mean of each metric over the judged queries, by name; see `ranking_metrics`.
        by_kind: The same for the queries of each kind of positive: `"image"`, `"text"`, `"mixed"`.
        counts: Number of `documents` and `queries`, and of queries by kind (`"queries/image"` and so on).
        seconds: Wall time of each step: `documents`, `queries`, `search`.
        settings: Settings of the evaluation: content of the documents, depth of the run and so on.
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
        """Return everything except the run, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "run"}

    def table(self, metrics: Sequence[str] | None = None) -> str:
        """Return a Markdown table with one row for all queries and one for each kind of positive."""
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
        model: A CIEAModel, a SentenceTransformer, or any object with `encode_query` and `encode_document`.
        dataset: Corpus, queries and judgements.
        content: `"full"`, `"caption"` (drops all images) or `"image"` (drops the captions of images), or a
            [`DocumentView`] with further settings.
        ks: Cut-offs of the metrics.
        top_k: Depth of the run; 100 by default, or the highest cut-off if that is more.
        options: Batch size, type and so on.
        folder: Folder that keeps the embeddings, so that an interrupted evaluation can continue; in memory if `None`.
        device: Device that computes scores; the model's device by default.

    Returns:
        Metrics overall and by kind of positive, the run, and the seconds of each step.

    Raises:
        ValueError: If `top_k` is less than the highest cut-off, or no query has a judgement.

    Examples:
        >>> evaluate(model, load_retrieval_dataset("my-data", split="test")).metrics["mrr@10"]  # doctest: +SKIP
        0.5312
    """
    cutoffs = sorted(set(ks))
    depth = run_depth(cutoffs, top_k)
    options = options or EncodingOptions()
    view = content if isinstance(content, DocumentView) else DocumentView(dataset, content)
    queries = dataset.judged_queries()
    clock = _Clock()
    corpus = encode_corpus(model, dataset, folder, view, options)
    clock.lap("documents")
    embeddings = encode_queries(model, list(queries.values()), options.batch_size, options.truncate_dim)
    clock.lap("queries")
    index = corpus.index("flat", device or getattr(model, "device", None))
    run = as_run(list(queries), index.search(embeddings, depth))
    clock.lap("search")
    settings = {
        "content": view.content,
        "top_k": depth,
        "precision": options.precision,
        "batch_size": options.batch_size,
    }
    return score_run(run, dataset, cutoffs, clock.seconds, settings)


def run_depth(ks: Sequence[int], top_k: int | None = None) -> int:
    """Return the number of documents a run keeps per query: 100 or the highest cut-off, whichever is more, if `None`.

    Raises:
        ValueError: If `top_k` is less than the highest cut-off.
    """
    depth = max(100, *ks) if top_k is None else top_k
    if ks and depth < max(ks):
        raise ValueError(f"`top_k` must be at least the highest cut-off {max(ks)}; got {depth}")
    return depth


def score_run(
    run: Run,
    dataset: RetrievalDataset,
    ks: Iterable[int] = DEFAULT_KS,
    seconds: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
) -> EvaluationResult:
    """Score a run made by any system.

    Args:
        run: Query id to document id to score.
        dataset: Corpus and judgements.
        ks: Cut-offs of the metrics.
        seconds: Wall time of the steps that made the run.
        settings: Settings under which the run was made.

    Returns:
        Metrics overall and by kind of positive.

    Raises:
        ValueError: If the data set has no judgements.
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


def as_run(queries: Sequence[str], result: SearchResult) -> dict[str, dict[str, float]]:
    """Convert a search result to a run.

    Args:
        queries: Query ids, one per row of the result.
        result: Ids and scores of the documents found.

    Returns:
        Query id to document id to score.
    """
    rows = zip(queries, result.ids, result.scores, strict=True)
    return {query: dict(zip(ids, scores, strict=True)) for query, ids, scores in rows}


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
