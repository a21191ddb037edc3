"""Evaluation of large corpora: seconds to keep and to search embeddings, and memory.

  python -m benchmarks.large_corpus                                   # WebQA-Multi's size, and a tenth of it
  python -m benchmarks.large_corpus --documents 20000 --width 64

Each size is measured in a process of its own, by `evaluate` as it is. What embeds costs nothing: vectors are random
directions told by the document's number, and a query's is its document's with noise, so that MRR@10 must be 1. What is
measured is everything but the model: reading, sharding, writing, exact search in blocks, metrics.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from benchmarks.common.files import make_parser, say
from benchmarks.common.memory import AnonymousPeak, measure_in_child, resident
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "large_corpus.md"
GB = 1e9
NOISE = 0.5  # length of what is added to a query, where its document's vector has length 1


class Setting(NamedTuple):
    """What one process measures."""

    documents: int
    queries: int
    width: int


class Figure(NamedTuple):
    """Seconds by step, bytes before and at the peak, bytes of the embeddings on disk, and MRR@10."""

    seconds: dict[str, float]
    before: int
    peak: int
    kept: int
    mrr: float


class Directions:
    """Embeds `"document 17"` as the 17th random direction, and `"query 17"` near it."""

    fingerprint = "random directions"

    def __init__(self, width: int) -> None:
        self.width = width

    def encode_document(self, inputs: Sequence[str], **_: Any) -> torch.Tensor:
        """Embed documents, normalised."""
        rows = [np.random.default_rng(_number(text)).standard_normal(self.width, dtype=np.float32) for text in inputs]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)), dim=1)

    def encode_query(self, inputs: Sequence[str], **_: Any) -> torch.Tensor:
        """Embed queries, normalised."""
        noise = np.random.default_rng(0).standard_normal((len(inputs), self.width), dtype=np.float32)
        near = self.encode_document(inputs) + NOISE * torch.nn.functional.normalize(torch.from_numpy(noise), dim=1)
        return torch.nn.functional.normalize(near, dim=1)


def _number(text: str) -> int:
    return int(text.split()[1])


def measure(setting: Setting) -> Figure:
    """Evaluate a corpus of random directions."""
    from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
    from ciea_hf.evaluation import evaluate
    from ciea_hf.retrieval.encoding import EncodingOptions

    size = setting.documents
    texts = [f"document {number}" for number in range(size)]
    corpus = corpus_from_columns([f"d{number}" for number in range(size)], texts, [None] * size)
    asked = np.random.default_rng(1).choice(size, size=setting.queries, replace=False).tolist()
    queries = queries_from_columns([f"q{number}" for number in asked], [f"query {number}" for number in asked])
    qrels = {f"q{number}": {f"d{number}": 1} for number in asked}
    dataset = RetrievalDataset(corpus, queries, qrels, name="random directions", split="test")
    del texts
    before = resident("RssAnon")
    with tempfile.TemporaryDirectory() as folder, AnonymousPeak() as peak:
        options = EncodingOptions(dtype="float16", batch_size=1024)
        result = evaluate(Directions(setting.width), dataset, folder=folder, options=options)
    kept = size * setting.width * 2
    return Figure(result.seconds, before, peak.bytes, kept, result.metrics["mrr@10"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and show it; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[117_000, 1_170_000], help="sizes of the corpus")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--width", type=int, default=768, help="of the embeddings")
    parser.add_argument("--child", help=f"of this script's own: a setting as JSON, {Setting._fields}")
    parsed = parser.parse_args(arguments)
    if parsed.child:
        say(json.dumps(measure(Setting(*json.loads(parsed.child)))))
        return 0
    settings = {size: Setting(size, parsed.queries, parsed.width) for size in parsed.documents}
    found = {size: Figure(*measure_in_child("benchmarks.large_corpus", setting)) for size, setting in settings.items()}
    text = page(found, parsed.queries, parsed.width)
    with atomic_write(parsed.output / NAME) as path:
        path.write_text(text, encoding="utf-8")
    say(f"\n{text}\nwritten: {parsed.output / NAME}")
    return 0


def page(found: dict[int, Figure], queries: int, width: int) -> str:
    """Write the table."""
    lines = [
        "# Evaluation of large corpora",
        "",
        f"`evaluate` on random directions of width {width}, kept in half precision, {queries} queries, depth 100, CPU, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}. Memory is what is resident and no file's: the "
        "embeddings are memory-mapped. MRR@10 must be 1. `python -m benchmarks.large_corpus`",
        "",
        "| documents | embed and keep, s | search, s | GB before | GB at the peak | GB on disk | MRR@10 |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size, figure in found.items():
        sizes = (f"{value / GB:.2f}" for value in (figure.before, figure.peak, figure.kept))
        seconds = (f"{figure.seconds[step]:.0f}" for step in ("documents", "search"))
        lines.append(f"| {size:,} | {' | '.join([*seconds, *sizes])} | {figure.mrr:.3f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
