"""Hard negatives: what a model ranks high for a query without being relevant to it."""

from __future__ import annotations

import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.data import column_values
from ciea_hf.retrieval.corpus import encode_corpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import EncodingOptions, encode_queries
from ciea_hf.retrieval.index import FlatIndex
from ciea_hf.utils import atomic_write, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.retrieval.encoding import Encoder

logger = logging.getLogger(__name__)

KINDS = ("image", "text")
FILE = "negatives.parquet"


@dataclass(frozen=True)
class MiningOptions:
    """How negatives are chosen.

    Attributes:
        depth: Best documents that are looked at, per query.
        window: Ranks among them, from 0, that negatives are drawn from, positives already removed.
        images: Negatives with an image that are kept for each query.
        texts: Negatives without one.
        relative_margin: Drop documents scoring above the best positive's score times (1 - this).
        max_score: Drop documents scoring above this.
        seed: Of the draw within the window; the best are kept if the window holds no more than the quota.
    """

    depth: int = 100
    window: tuple[int, int] = (0, 100)
    images: int = 10
    texts: int = 10
    relative_margin: float | None = None
    max_score: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.window
        if not 0 <= low < high:
            raise ValueError(f"`window` must be two ranks, the first from 0 and below the second, got {self.window}")
        if self.depth < 1 or self.images < 0 or self.texts < 0:
            raise ValueError("`depth` must be at least 1, `images` and `texts` at least 0")


@dataclass
class MinedNegatives:
    """What was found.

    Attributes:
        by_query: Query id to kind to document ids, best first.
        report: How many candidates were seen, kept, and dropped for which reason.
    """

    by_query: dict[str, dict[str, list[str]]]
    report: dict[str, int] = field(default_factory=dict)


def mine_negatives(
    model: Encoder,
    dataset: RetrievalDataset,
    options: MiningOptions,
    *,
    documents: str = "full",
    encoding: EncodingOptions | None = None,
    folder: str | Path | None = None,
) -> MinedNegatives:
    """Rank the whole corpus for every judged query and choose its hard negatives.

    Args:
        model: Embeds queries and documents.
        dataset: Whose queries and corpus; every labelled positive of a query is removed.
        options: How they are chosen.
        documents: Part of the documents that the model sees: ``"full"``, ``"caption"`` or ``"image"``.
        encoding: Batch size and the like.
        folder: Where embeddings are kept in shards, so that memory is bounded and an interrupted call goes on.

    Returns:
        The negatives and a report.
    """
    encoding = encoding or EncodingOptions()
    queries = _judged(dataset)
    corpus = encode_corpus(model, dataset, folder, DocumentView(dataset, documents), encoding)
    index = FlatIndex(corpus.shards, corpus.ids, device=getattr(model, "device", None))
    most = max((sum(score > 0 for score in dataset.qrels[query].values()) for query in queries), default=0)
    embeddings = encode_queries(model, list(queries.values()), encoding.batch_size)
    scores, places = index.search(embeddings, min(options.depth + most, len(corpus)))
    rankings = (
        [(index.ids[place], score) for place, score in zip(row, values, strict=True)]
        for row, values in zip(places.tolist(), scores.tolist(), strict=True)
    )
    positives = _best_positive_scores(embeddings, corpus, dataset, list(queries)) if options.relative_margin else {}
    return choose_negatives(dict(zip(queries, rankings, strict=True)), dataset, options, positives)


def choose_negatives(
    rankings: Mapping[str, Sequence[tuple[str, float]]],
    dataset: RetrievalDataset,
    options: MiningOptions,
    positive_scores: Mapping[str, float] | None = None,
) -> MinedNegatives:
    """Choose negatives from rankings.

    Args:
        rankings: Query id to (document id, score), best first.
        dataset: Judgements and kinds of documents.
        options: How they are chosen.
        positive_scores: Query id to the score of its best positive, for ``relative_margin``.

    Returns:
        The negatives and a report.
    """
    quotas = {"image": options.images, "text": options.texts}
    report: Counter[str] = Counter()
    found: dict[str, dict[str, list[str]]] = {}
    for query, ranking in rankings.items():
        relevant = {document for document, score in dataset.qrels.get(query, {}).items() if score > 0}
        limit = _score_limit(options, (positive_scores or {}).get(query))
        kept: list[str] = []
        others = [pair for pair in ranking if pair[0] not in relevant][: options.depth]
        report["candidates"] += len(others)
        report["dropped: relevant"] += sum(document in relevant for document, _ in ranking)
        for rank, (document, score) in enumerate(others):
            if not options.window[0] <= rank < options.window[1]:
                report["dropped: outside the window"] += 1
            elif score > limit:
                report["dropped: score too high"] += 1
            else:
                kept.append(document)
        rng = random.Random(f"{options.seed}-{query}")
        found[query] = {kind: _draw(kept, kind, quotas[kind], dataset, rng) for kind in KINDS}
        chosen = sum(map(len, found[query].values()))
        report["dropped: beyond the quota"] += len(kept) - chosen
        report["kept"] += chosen
    return MinedNegatives(found, dict(report))


def save_negatives(negatives: MinedNegatives, path: str | Path) -> Path:
    """Write negatives as parquet: ``query-id``, ``corpus-id``, ``kind``, ``rank``.

    Args:
        negatives: What was mined.
        path: A folder, or a file ending in ``.parquet``.

    Returns:
        The file.
    """
    datasets = require("datasets", extra="train")
    target = Path(path) if str(path).endswith(".parquet") else Path(path) / FILE
    rows = [
        {"query-id": query, "corpus-id": document, "kind": kind, "rank": rank}
        for query, kinds in negatives.by_query.items()
        for kind, documents in kinds.items()
        for rank, document in enumerate(documents)
    ]
    columns = ("query-id", "corpus-id", "kind", "rank")
    table = datasets.Dataset.from_dict({column: [row[column] for row in rows] for column in columns})
    with atomic_write(target) as temporary:
        table.to_parquet(str(temporary))
    return target


def load_negatives(path: str | Path, corpus_ids: Iterable[str]) -> dict[str, dict[str, list[int]]]:
    """Read negatives.

    Args:
        path: The file, or the folder that holds it.
        corpus_ids: Of the corpus they were mined in.

    Returns:
        Query id to kind to corpus rows, best first.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a document is not in the corpus.
    """
    parquet = require("pyarrow.parquet", extra="train")
    target = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not target.is_file():
        raise FileNotFoundError(f"no mined negatives at {target}; run stage `mine` first or name `negatives`")
    rows = {identifier: row for row, identifier in enumerate(corpus_ids)}
    found: dict[str, dict[str, list[int]]] = {}
    for entry in parquet.read_table(target).sort_by("rank").to_pylist():
        if entry["corpus-id"] not in rows:
            raise ValueError(f"{target}: document {entry['corpus-id']!r} is not in the corpus")
        found.setdefault(entry["query-id"], {}).setdefault(entry["kind"], []).append(rows[entry["corpus-id"]])
    return found


def _judged(dataset: RetrievalDataset) -> dict[str, str]:
    texts = dict(zip(column_values(dataset.queries, "id"), column_values(dataset.queries, "text"), strict=True))
    return {query: texts[query] for query, judged in dataset.qrels.items() if query in texts and judged}


def _score_limit(options: MiningOptions, positive: float | None) -> float:
    limits = [float("inf") if options.max_score is None else options.max_score]
    if options.relative_margin is not None and positive is not None:
        limits.append(positive - abs(positive) * options.relative_margin)
    return min(limits)


def _draw(documents: Sequence[str], kind: str, quota: int, dataset: RetrievalDataset, rng: random.Random) -> list[str]:
    """Draw a quota of one kind, keeping the order of the ranking."""
    places = [i for i, document in enumerate(documents) if dataset.document_kinds[document] == kind]
    return [documents[i] for i in sorted(rng.sample(places, min(quota, len(places))))]


def _best_positive_scores(
    embeddings: Any, corpus: Any, dataset: RetrievalDataset, queries: Sequence[str]
) -> dict[str, float]:
    """Score of each query's best positive, read from the shards row by row."""
    places = {identifier: place for place, identifier in enumerate(corpus.ids)}
    starts = [0]
    for shard in corpus.shards:
        starts.append(starts[-1] + len(shard))
    found: dict[str, float] = {}
    for query, embedding in zip(queries, embeddings, strict=True):
        scores = []
        for document, judged in dataset.qrels[query].items():
            if judged > 0 and document in places:
                number = next(i for i in range(len(corpus.shards)) if places[document] < starts[i + 1])
                row = corpus.shards[number][places[document] - starts[number]]
                scores.append(float(row.astype("float32") @ embedding))
        if scores:
            found[query] = max(scores)
    return found
