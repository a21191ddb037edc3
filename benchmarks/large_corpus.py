"""Time and memory of evaluation on large corpora.

Each size is measured by `evaluate` in a separate process. A document is embedded as a random direction derived from its
number, and a query as the direction of its document with added noise, so that MRR@10 must be 1. The measurement thus
covers everything except the model: reading, sharding, writing, exact blockwise search and metrics.

Examples:
  python -m benchmarks.large_corpus                 # the size of WebQA-Multi, and a tenth of it
  python -m benchmarks.large_corpus --documents 20000 --width 64
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from benchmarks.common.files import make_parser, say, write_page
from benchmarks.common.memory import AnonymousPeak, measure_in_child, resident
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "large_corpus.md"
GB = 1e9
NOISE = 0.5  # length of the vector added to a query; the vector of its document has length 1


class Setting(NamedTuple):
    """Setting of one measurement.

    Attributes:
        documents: Number of documents.
        queries: Number of queries.
        width: Dimension of the embeddings.
    """

    documents: int
    queries: int
    width: int


class Result(NamedTuple):
    """Result of one measurement.

    Attributes:
        seconds: Seconds by step.
        before: Memory before the evaluation, in bytes.
        peak: Peak memory, in bytes.
        disk: Size of the embeddings on disk, in bytes.
        mrr: MRR@10.
    """

    seconds: dict[str, float]
    before: int
    peak: int
    disk: int
    mrr: float


class RandomDirections:
    """Encoder that maps `"document 17"` to a random direction with seed 17, and `"query 17"` to a vector near it."""

    fingerprint = "random directions"

    def __init__(self, width: int) -> None:
        self.width = width

    def encode_document(self, inputs: Sequence[str], **_: Any) -> torch.Tensor:
        """Embed documents as normalised vectors."""
        rows = [np.random.default_rng(_number(text)).standard_normal(self.width, dtype=np.float32) for text in inputs]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)), dim=1)

    def encode_query(self, inputs: Sequence[str], **_: Any) -> torch.Tensor:
        """Embed queries as normalised vectors."""
        noise = np.random.default_rng(0).standard_normal((len(inputs), self.width), dtype=np.float32)
        near = self.encode_document(inputs) + NOISE * torch.nn.functional.normalize(torch.from_numpy(noise), dim=1)
        return torch.nn.functional.normalize(near, dim=1)


def _number(text: str) -> int:
    return int(text.split()[1])


def measure(setting: Setting) -> Result:
    """Evaluate a corpus of random directions."""
    from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
    from ciea_hf.evaluation import evaluate
    from ciea_hf.retrieval.encoding import EncodingOptions

    size = setting.documents
    texts = [f"document {number}" for number in range(size)]
    corpus = corpus_from_columns([f"d{number}" for number in range(size)], texts, [None] * size)
    queried = np.random.default_rng(1).choice(size, size=setting.queries, replace=False).tolist()
    queries = queries_from_columns([f"q{number}" for number in queried], [f"query {number}" for number in queried])
    qrels = {f"q{number}": {f"d{number}": 1} for number in queried}
    dataset = RetrievalDataset(corpus, queries, qrels, name="random directions", split="test")
    del texts
    before = resident("RssAnon")
    with tempfile.TemporaryDirectory() as folder, AnonymousPeak() as peak:
        options = EncodingOptions(precision="float16", batch_size=1024)
        result = evaluate(RandomDirections(setting.width), dataset, folder=folder, options=options)
    disk = size * setting.width * 2
    return Result(result.seconds, before, peak.bytes, disk, result.metrics["mrr@10"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each size and write the result page.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("large_corpus", __doc__)
    parser.add_argument(
        "--documents",
        type=int,
        nargs="+",
        default=[117_000, 1_170_000],
        help="numbers of documents (default: 117000 1170000)",
    )
    parser.add_argument("--queries", type=int, default=1000, help="number of queries (default: 1000)")
    parser.add_argument("--width", type=int, default=768, help="dimension of the embeddings (default: 768)")
    parser.add_argument("--child", help=f"internal: measure one setting, a JSON list of {', '.join(Setting._fields)}")
    parsed = parser.parse_args(arguments)
    if parsed.child:
        say(json.dumps(measure(Setting(*json.loads(parsed.child)))))
        return 0
    results = {}
    for size in parsed.documents:
        setting = Setting(size, parsed.queries, parsed.width)
        results[size] = Result(*measure_in_child("benchmarks.large_corpus", setting))
    write_page(parsed.output / NAME, page(results, parsed.queries, parsed.width))
    return 0


def page(results: Mapping[int, Result], queries: int, width: int) -> str:
    """Generate the result page.

    Args:
        results: Results by number of documents.
        queries: Number of queries.
        width: Dimension of the embeddings.

    Returns:
        The page in Markdown.
    """
    rows = [["documents", "encoding, s", "search, s", "GB before", "GB at peak", "GB on disk", "MRR@10"]]
    for size, result in results.items():
        seconds = [f"{result.seconds[step]:.0f}" for step in ("documents", "search")]
        gigabytes = [f"{value / GB:.2f}" for value in (result.before, result.peak, result.disk)]
        rows.append([f"{size:,}", *seconds, *gigabytes, f"{result.mrr:.3f}"])
    return f"""# Evaluation of large corpora

`evaluate` on random directions of dimension {width}, stored in half precision; {queries} queries, depth 100, CPU,
{torch.get_num_threads()} threads, torch {torch.__version__}. Memory is the resident memory without memory-mapped files,
such as the embeddings. MRR@10 must be 1. Command: `python -m benchmarks.large_corpus`

{text_table(rows)}
"""


if __name__ == "__main__":
    sys.exit(main())
