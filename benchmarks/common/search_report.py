"""The page and the chart of the benchmark of search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

NAMES = {
    "plain": "numpy's plain product", "flat": "flat", "scan": "scan", "scan-faiss": "scan, with FAISS",
    "hnsw": "faiss, HNSW", "ivfpq": "faiss, IVF-PQ", "lancedb": "LanceDB", "qdrant": "Qdrant, in memory",
    "milvus": "Milvus-lite",
}  # fmt: skip


def page(results: Mapping[str, Mapping[str, Any]], threads: int) -> str:
    """Generate the result page.

    Args:
        results: Results by title of the corpus and by index: build, disk, memory, single, batched, recall.
        threads: Number of threads.

    Returns:
        The page in Markdown.
    """
    parts = [_HEAD.format(threads=threads)]
    for title, measured in results.items():
        rows = [["index", "build, s", "disk, MB", "memory, MB", "all", "60 %", "1.2 %", "batched", "recall@10"]]
        for name, (build, disk, memory, single, batched, recall) in measured.items():
            times = ["/".join(f"{value:.1f}" for value in single[part]) if part in single else "-" for part in _PARTS]
            recalls = ", ".join(f"{recall[part]:.3f}" for part in _PARTS if part in recall)
            sizes = [f"{value / 1e6:,.0f}" for value in (disk, memory)]
            rows.append([NAMES[name], f"{build:,.1f}", *sizes, *times, f"{batched['all']:.1f}", recalls])
        parts.append(f"## {title}\n\n{text_table(rows)}")
    return "\n\n".join(parts) + "\n"


def chart(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the time of a single query over the number of documents, for each index."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    sizes = {
        title: int(title.split()[0].replace(",", "")) for title in results if title[0].isdigit() and " x " in title
    }
    for name, label in NAMES.items():
        points = sorted((sizes[title], results[title][name][3]["all"][0]) for title in sizes if name in results[title])
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="documents", ylabel="milliseconds per query (p50)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


_PARTS = ("all", "60 %", "1.2 %")
_HEAD = """# Search

Every index over the same memory-mapped embeddings, in float32: clustered random vectors of dimension 768, and the
documents and queries of real data sets. {threads} threads. `all`, `60 %` and `1.2 %` are the p50/p95 in milliseconds of
a single query without a filter and with filters that keep this share of the documents; `batched` is the time per query
of a batch without a filter; recall@10 is against exact search, in the same three columns. `build` includes the first
search; `disk` is what an index stores beside the embeddings and codes of the index folder; `memory` is the peak of the
resident memory without mapped files, beyond that of the process before. `numpy's plain product` multiplies the
memory-mapped matrix with the query and takes the best. Command: `python -m benchmarks.search`

![Milliseconds per query over the number of documents](search.png)"""
