"""Time, memory, disk and recall of every index, without a filter and with filters that keep 60 % and 1.2 %.

The vectors are random ones around 1,000 centres; a query is a document with added noise. `plain product` is numpy's
product of the memory-mapped matrix with the query, without anything else. Each index is measured in a process of its
own. With `--real MODEL DATASET`, the documents and the queries of a data set are measured as well.

Examples:
  python -m benchmarks.search                                  # 10,000 and 100,000 documents
  python -m benchmarks.search --sizes 1200000 --indexes plain flat scan scan-faiss
  python -m benchmarks.search --sizes --real demo/ciea demo
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from benchmarks.common.files import make_parser, say, write_page
from benchmarks.common.memory import AnonymousPeak, measure_in_child, resident
from benchmarks.common.search_report import chart, page
from ciea_hf.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval import Index

INDEXES = ("plain", "flat", "scan", "scan-faiss", "hnsw", "ivfpq", "lancedb", "qdrant", "milvus")
SMALL_ONLY = {"hnsw": 200_000, "qdrant": 20_000, "milvus": 20_000}
"""Most documents of an index: a graph takes long to build, and the local modes of the two engines are for tests."""
CENTRES, NOISE, QUERIES, TOP_K = 1000, 0.3, 50, 10
SHARD = 50_000
FILTERS: dict[str, dict[str, Any] | None] = {
    "all": None,
    "60 %": {"part": {"$lt": 600}},
    "1.2 %": {"part": {"$lt": 12}},
}
"""Filters by the share of the documents that they keep."""


class Setting(NamedTuple):
    """Setting of one measurement: index, folder of the corpus, folder for what the index stores."""

    kind: str
    corpus: str
    scratch: str


class Result(NamedTuple):
    """Result of one measurement.

    Attributes:
        build: Seconds from the encoded corpus to an index that has answered once.
        disk: Bytes that the index stores beside the embeddings.
        memory: Peak of the resident memory without mapped files, beyond that before the index was opened, in bytes.
        single: p50 and p95 of one query in milliseconds, by filter.
        batched: Milliseconds per query of a batch of 50, by filter.
        recall: Recall@10 by filter.
    """

    build: float
    disk: int
    memory: int
    single: dict[str, tuple[float, float]]
    batched: dict[str, float]
    recall: dict[str, float]


def make_corpus(folder: Path, documents: int, width: int) -> None:
    """Write an index folder of clustered vectors, and its queries."""
    from ciea_hf.retrieval import DocumentRecord, EncodedCorpus
    from ciea_hf.retrieval.segment import make_segment

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, width), dtype=np.float32)
    for start in range(0, documents, SHARD):
        count = min(SHARD, documents - start)
        rows = _unit(centres[rng.integers(0, CENTRES, count)] + rng.standard_normal((count, width), dtype=np.float32))
        parts = rng.integers(0, 1000, count).tolist()
        records = [DocumentRecord(f"d{start + i}", "text", None, {"part": part}) for i, part in enumerate(parts)]
        old = _segments(folder) if start else []
        corpus = EncodedCorpus([*old, make_segment(rows, records)])
        corpus.save(folder)
    chosen = np.sort(rng.choice(documents, QUERIES, replace=False))
    rows = EncodedCorpus(_segments(folder)).embeddings(chosen)
    np.save(folder / "queries.npy", _unit(rows + NOISE / np.sqrt(width) * rng.standard_normal(rows.shape)))


def make_real_corpus(folder: Path, model: str, dataset: str) -> None:
    """Encode a data set, and its queries; the filters compare a random number of each document."""
    from ciea_hf.loading import load_dataset, load_encoder
    from ciea_hf.retrieval import DocumentRecord, EncodedCorpus, encode_corpus, encode_queries
    from ciea_hf.retrieval.segment import make_segment

    encoder, data = load_encoder(model), load_dataset(dataset, "test")
    rows = encode_corpus(encoder, data).matrix()
    parts = np.random.default_rng(0).integers(0, 1000, len(rows)).tolist()
    records = [
        DocumentRecord(name, "text", None, {"part": part}) for name, part in zip(data.corpus_ids, parts, strict=True)
    ]
    EncodedCorpus([make_segment(rows, records)]).save(folder)
    np.save(folder / "queries.npy", encode_queries(encoder, list(data.query_texts.values())[:200]))


def measure(setting: Setting) -> Result:
    """Measure one index."""
    from ciea_hf.retrieval import FlatIndex, load_corpus

    corpus = load_corpus(setting.corpus)
    queries = np.load(Path(setting.corpus) / "queries.npy").astype(np.float32)
    truth = {name: FlatIndex(corpus).search(queries, TOP_K, condition).ids for name, condition in FILTERS.items()}
    before = resident("RssAnon")
    with AnonymousPeak() as peak:
        start = time.perf_counter()
        search = _plain(setting) if setting.kind == "plain" else _searcher(setting)
        search(queries[:1], None)
        build = time.perf_counter() - start
        single, batched, recall = {}, {}, {}
        for name, condition in FILTERS.items():
            if setting.kind == "plain" and condition is not None:
                continue
            search(queries[:1], condition)
            times = [_seconds(search, queries[number : number + 1], condition)[0] for number in range(len(queries))]
            single[name] = (1e3 * float(np.percentile(times, 50)), 1e3 * float(np.percentile(times, 95)))
            seconds, found = _seconds(search, queries, condition)
            batched[name] = 1e3 * seconds / len(queries)
            pairs = zip(found, truth[name], strict=True)
            recall[name] = float(np.mean([len({*one} & {*two}) / max(1, len(two)) for one, two in pairs]))
    disk = sum(path.stat().st_size for path in Path(setting.scratch).rglob("*") if path.is_file())
    return Result(build, disk, max(0, peak.bytes - before), single, batched, recall)


def _searcher(setting: Setting) -> Callable[..., list[list[str]]]:
    index = _index(setting)
    return lambda queries, condition: index.search(queries, TOP_K, condition).ids


def _plain(setting: Setting) -> Callable[..., list[list[str]]]:
    """Numpy's product of each shard's memory map with the queries, and the best of it."""
    segments = _segments(Path(setting.corpus))
    ids = [name for segment in segments for name in segment.column("id")]

    def search(queries: NDArray[np.float32], _condition: Any) -> list[list[str]]:
        right = queries[0] if len(queries) == 1 else queries.T
        products = [np.asarray(segment.vectors.rows) @ right for segment in segments]
        scores = np.concatenate(products).reshape(len(ids), -1)
        best = [np.argpartition(column, -TOP_K)[-TOP_K:] for column in scores.T]
        return [[ids[row] for row in rows] for rows in best]

    return search


def _index(setting: Setting) -> Index:
    """Open or build an index over the corpus."""
    from ciea_hf.retrieval import FlatIndex, ScanIndex, load_corpus
    from ciea_hf.retrieval.indexes import index_class
    from ciea_hf.retrieval.indexes.faiss import FaissIndex

    corpus = load_corpus(setting.corpus)
    if setting.kind == "flat":
        return FlatIndex(corpus)
    if setting.kind.startswith("scan"):
        return ScanIndex(corpus, engine="faiss" if setting.kind == "scan-faiss" else "numpy")
    if setting.kind in ("hnsw", "ivfpq"):
        index = FaissIndex(corpus, method=setting.kind)
        index._refresh()
        import faiss

        faiss.write_index(index._index, str(Path(setting.scratch) / "index.faiss"))
        return index
    uris = {"lancedb": setting.scratch, "qdrant": ":memory:", "milvus": f"{setting.scratch}/documents.db"}
    make: Any = index_class(setting.kind)
    engine: Index = make(uris[setting.kind])
    for start in range(0, len(corpus), 10_000):
        positions = np.arange(start, min(start + 10_000, len(corpus)))
        engine.upsert(corpus.embeddings(positions), [corpus.record(int(position)) for position in positions])
    if hasattr(engine, "optimize") and len(corpus) > SHARD:
        engine.optimize()
    return engine


def _segments(folder: Path) -> list[Any]:
    from ciea_hf.retrieval import load_corpus

    return load_corpus(folder).segments


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _seconds(search: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = search(*arguments)
    return time.perf_counter() - start, found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the result page with its chart.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("search", __doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000], help="numbers of documents")
    parser.add_argument("--width", type=int, default=768, help="dimension of the embeddings (default: 768)")
    parser.add_argument("--indexes", nargs="+", choices=INDEXES, default=INDEXES, help="indexes (default: all)")
    parser.add_argument(
        "--real", nargs=2, action="append", default=[], metavar=("MODEL", "DATASET"), help="measure a data set, too"
    )
    parser.add_argument("--work", type=Path, help="folder of the corpora (default: a temporary one)")
    parser.add_argument("--child", help=f"internal: measure one setting, a JSON list of {', '.join(Setting._fields)}")
    parsed = parser.parse_args(arguments)
    if parsed.child:
        say(json.dumps(measure(Setting(*json.loads(parsed.child)))))
        return 0
    stored = parsed.output / "search.json"
    results: dict[str, dict[str, Any]] = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    with tempfile.TemporaryDirectory(dir=parsed.work) as work:
        for size in parsed.sizes:
            title = f"{size:,} x {parsed.width}"
            make_corpus(Path(work) / "corpus", size, parsed.width)
            results[title] = results.get(title, {}) | _measure_all(Path(work), parsed.indexes, size)
            shutil.rmtree(Path(work) / "corpus")
        for model, dataset in parsed.real:
            make_real_corpus(Path(work) / "corpus", model, dataset)
            title = f"{Path(dataset).name} by {Path(model).name}"
            results[title] = results.get(title, {}) | _measure_all(Path(work), parsed.indexes, 0)
            shutil.rmtree(Path(work) / "corpus")
    with atomic_write(stored) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    with atomic_write(parsed.output / "search.png") as temporary:
        chart(results).savefig(temporary, format="png", dpi=120, bbox_inches="tight")
    write_page(parsed.output / "search.md", page(results, torch.get_num_threads()))
    return 0


def _measure_all(work: Path, indexes: Sequence[str], size: int) -> dict[str, Any]:
    found = {}
    for name in indexes:
        if size > SMALL_ONLY.get(name, size):
            continue
        scratch = work / "scratch"
        scratch.mkdir()
        found[name] = measure_in_child("benchmarks.search", Setting(name, str(work / "corpus"), str(scratch)))
        say(f"{size:,} {name}: {found[name]}")
        shutil.rmtree(scratch)
    return found


if __name__ == "__main__":
    sys.exit(main())
