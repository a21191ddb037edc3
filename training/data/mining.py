"""Hard-negative mining: documents that a model ranks high for a query without being relevant to it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.data.copies import with_copies
from ciea_hf.retrieval.building import encode_corpus, encode_shards
from ciea_hf.retrieval.encoding import EncodingOptions, encode_queries
from ciea_hf.retrieval.folder import load_corpus
from ciea_hf.retrieval.results import exact_scores
from ciea_hf.training.data.negatives import MinedNegatives, MiningOptions, choose_negatives
from ciea_hf.training.distributed import barrier, gather_objects, process_rank, world_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.retrieval.corpus import EncodedCorpus
    from ciea_hf.retrieval.documents import DocumentView
    from ciea_hf.retrieval.encoding import Encoder


def mine_negatives(
    model: Encoder,
    dataset: RetrievalDataset,
    options: MiningOptions,
    *,
    encoding: EncodingOptions | None = None,
    folder: str | Path | None = None,
    view: DocumentView | None = None,
) -> MinedNegatives:
    """Rank the whole corpus for every judged query and choose its hard negatives.

    In a distributed run every process calls this: each embeds its share of the shards into the common folder, and then
    searches all of them for its share of the queries.

    Args:
        model: Encoder of queries and documents.
        dataset: Queries, judgements and corpus; the labelled positives of a query and
            their copies are removed from its negatives.
        options: How negatives are chosen.
        encoding: Batch size and so on.
        folder: Folder that keeps the embeddings, so that memory is bounded and an interrupted call can continue.
        view: View of the corpus; whole documents if `None`.

    Returns:
        The negatives and a report, the same in every process.

    Raises:
        ValueError: If there are several processes and no `folder`, or no negative is kept.
    """
    encoding = encoding or EncodingOptions()
    corpus = _encode(model, dataset, encoding, folder, view)
    queries = dict(list(dataset.judged_queries().items())[process_rank() :: world_size()])
    found = MinedNegatives({})
    if queries:
        embeddings = encode_queries(model, list(queries.values()), encoding.batch_size, encoding.truncate_dim)
        rankings = _rankings(corpus, list(queries), embeddings, dataset, options, getattr(model, "device", None))
        positives: dict[str, float] = {}
        if options.relative_margin is not None:
            positives = _best_positive_scores(embeddings, corpus, dataset, list(queries))
        found = choose_negatives(rankings, dataset, options, positives)
    merged = _merge(gather_objects(found), dataset.judged_queries())
    if not merged.report.get("kept"):
        report = ", ".join(f"{count} {name}" for name, count in merged.report.items())
        raise ValueError(f"no negative was kept ({report}): change the window, the depth or the limits of the score")
    return merged


def _encode(
    model: Encoder,
    dataset: RetrievalDataset,
    encoding: EncodingOptions,
    folder: str | Path | None,
    view: DocumentView | None,
) -> EncodedCorpus:
    """Embed the corpus, each process its share of the shards."""
    if folder is None:
        if world_size() > 1:
            raise ValueError("`folder` is required with several processes, which share their embeddings through it")
        return encode_corpus(model, dataset, view=view, options=encoding)
    encode_shards(model, dataset, folder, view, encoding, shard=(process_rank(), world_size()))
    barrier()
    return load_corpus(folder)


def _rankings(
    corpus: EncodedCorpus,
    queries: Sequence[str],
    embeddings: NDArray[np.float32],
    dataset: RetrievalDataset,
    options: MiningOptions,
    device: Any,
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Rank the corpus for all queries, and yield each query with its ranking."""
    index = corpus.index("flat", device)
    most_relevant = max(len(with_copies(dataset.relevant(query), dataset.copies)) for query in queries)
    result = index.search(embeddings, min(options.depth + most_relevant, len(index)))
    for query, ids, scores in zip(queries, result.ids, result.scores, strict=True):
        yield query, list(zip(ids, scores, strict=True))


def _merge(parts: Sequence[MinedNegatives], queries: Iterable[str]) -> MinedNegatives:
    by_query = {query: kinds for part in parts for query, kinds in part.by_query.items()}
    report: Counter[str] = Counter()
    for part in parts:
        report.update(part.report)
    return MinedNegatives({query: by_query[query] for query in queries}, dict(report))


def _best_positive_scores(
    embeddings: NDArray[np.float32], corpus: EncodedCorpus, dataset: RetrievalDataset, queries: Sequence[str]
) -> dict[str, float]:
    """Return the score of each query's best positive, reading single rows of the shards."""
    relevant = {query: [name for name, score in dataset.qrels[query].items() if score > 0] for query in queries}
    positions = corpus.positions(sorted({name for names in relevant.values() for name in names}), live_only=True)
    found: dict[str, float] = {}
    for query, embedding in zip(queries, embeddings, strict=True):
        rows = np.array([positions[name] for name in relevant[query] if name in positions], dtype=np.int64)
        if len(rows):
            found[query] = float(exact_scores(embedding, corpus.embeddings(rows)).max())
    return found
