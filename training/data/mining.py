"""Mining hard negatives: what a model ranks high for a query without being relevant to it."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.evaluation.evaluator import judged_queries
from ciea_hf.retrieval.corpus import encode_corpus, load_corpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import EncodingOptions, encode_queries
from ciea_hf.retrieval.index import FlatIndex
from ciea_hf.training.data.negatives import MinedNegatives, MiningOptions, choose_negatives
from ciea_hf.training.distributed import barrier, gather_objects, process_rank, world_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.retrieval.encoding import Encoder

    ViewMaker = Callable[[RetrievalDataset, int, int], Any]
    """A part of a data set, and its first row and the row behind its last in the whole, to what is encoded of it."""

PART_SIZE = 50_000  # documents that a process embeds at a stretch


def mine_negatives(
    model: Encoder,
    dataset: RetrievalDataset,
    options: MiningOptions,
    *,
    encoding: EncodingOptions | None = None,
    folder: str | Path | None = None,
    view: ViewMaker | None = None,
) -> MinedNegatives:
    """Rank the whole corpus for every judged query and choose its hard negatives.

    In a distributed run every process calls this: each embeds its share of the documents into the common folder, and
    then searches all of them for its share of the queries.

    Args:
        model: Embeds queries and documents.
        dataset: Whose queries and corpus; every labelled positive of a query is removed.
        options: How they are chosen.
        encoding: Batch size and the like.
        folder: Where embeddings are kept in parts, so that memory is bounded and an interrupted call goes on.
        view: Makes what the model is given of a stretch of the corpus; whole documents if None.

    Returns:
        The negatives and a report, the same in every process.

    Raises:
        ValueError: If several processes have no folder to share.
    """
    encoding = encoding or EncodingOptions()
    if folder is None and world_size() > 1:
        raise ValueError("several processes need a `folder` to share their embeddings")
    shards = _encode(model, dataset, encoding, None if folder is None else Path(folder), view or _whole_documents)
    queries = dict(list(judged_queries(dataset).items())[process_rank() :: world_size()])
    found = MinedNegatives({})
    if queries:
        embeddings = encode_queries(model, list(queries.values()), encoding.batch_size)
        rankings = _rankings(shards, list(queries), embeddings, dataset, options, getattr(model, "device", None))
        positives: dict[str, float] = {}
        if options.relative_margin is not None:
            positives = _best_positive_scores(embeddings, shards, dataset, list(queries))
        found = choose_negatives(rankings, dataset, options, positives)
    return _merged(gather_objects(found), judged_queries(dataset))


def _whole_documents(part: RetrievalDataset, start: int, stop: int) -> DocumentView:  # noqa: ARG001 (a ViewMaker)
    return DocumentView(part)


def _encode(
    model: Encoder, dataset: RetrievalDataset, encoding: EncodingOptions, folder: Path | None, view: ViewMaker
) -> list[NDArray[np.floating]]:
    """Embed the corpus part by part, each process its share of the parts."""
    bounds = [
        (start, min(start + PART_SIZE, len(dataset.corpus))) for start in range(0, len(dataset.corpus), PART_SIZE)
    ]
    folders = [None if folder is None else folder / f"part-{number:05d}" for number in range(len(bounds))]
    shards: dict[int, list[NDArray[np.floating]]] = {}
    for number in range(process_rank(), len(bounds), world_size()):
        rows = range(*bounds[number])
        part = dataclasses.replace(dataset, corpus=dataset.corpus.select(rows))
        shards[number] = encode_corpus(model, part, folders[number], view(part, rows.start, rows.stop), encoding).shards
    barrier()
    for number, name in enumerate(folders):
        if number not in shards and name is not None:
            shards[number] = load_corpus(name).shards
    return [shard for number in sorted(shards) for shard in shards[number]]


def _rankings(
    shards: list[NDArray[np.floating]],
    queries: Sequence[str],
    embeddings: NDArray[np.float32],
    dataset: RetrievalDataset,
    options: MiningOptions,
    device: Any,
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Rank the corpus for all queries; give each query's ranking when it is asked for."""
    index = FlatIndex(shards, dataset.corpus_ids, device=device)
    most = max(sum(score > 0 for score in dataset.qrels[query].values()) for query in queries)
    scores, places = index.search(embeddings, min(options.depth + most, len(index)))
    for query, row, values in zip(queries, places, scores, strict=True):
        yield query, [(index.ids[place], score) for place, score in zip(row.tolist(), values.tolist(), strict=True)]


def _merged(parts: Sequence[MinedNegatives], queries: Iterable[str]) -> MinedNegatives:
    by_query = {query: kinds for part in parts for query, kinds in part.by_query.items()}
    report: Counter[str] = Counter()
    for part in parts:
        report.update(part.report)
    return MinedNegatives({query: by_query[query] for query in queries}, dict(report))


def _best_positive_scores(
    embeddings: NDArray[np.float32],
    shards: Sequence[NDArray[np.floating]],
    dataset: RetrievalDataset,
    queries: Sequence[str],
) -> dict[str, float]:
    """Score of each query's best positive, read from the shards row by row."""
    places = {identifier: place for place, identifier in enumerate(dataset.corpus_ids)}
    starts = [0, *itertools.accumulate(len(shard) for shard in shards)]
    found: dict[str, float] = {}
    for query, embedding in zip(queries, embeddings, strict=True):
        scores = []
        for document, judged in dataset.qrels[query].items():
            if judged > 0 and document in places:
                number = bisect.bisect_right(starts, places[document]) - 1
                row = shards[number][places[document] - starts[number]]
                scores.append(float(row.astype("float32") @ embedding))
        if scores:
            found[query] = max(scores)
    return found
