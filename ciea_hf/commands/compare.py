"""Compare two runs query by query: paired randomisation test, and bootstrap intervals of the difference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf import loading
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from ciea_hf.evaluation.metrics import Run
    from ciea_hf.evaluation.significance import Comparison

HELP = "test whether one run is better than another"
EXAMPLES = """
  ciea evaluate runs/marvel demo --run-file marvel.run
  ciea evaluate runs/ciea demo --run-file ciea.run
  ciea compare marvel.run ciea.run --qrels demo --kind image
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_a", metavar="RUN_A", type=Path, help="TREC run file of the first system")
    parser.add_argument("run_b", metavar="RUN_B", type=Path, help="TREC run file of the second system")
    parser.add_argument("--qrels", required=True, metavar="QRELS", help=f"TREC qrels file, or {common.DATASET_HELP}")
    common.add_dataset_arguments(parser)
    parser.add_argument(
        "--kind", choices=("image", "text", "mixed"), help="only queries whose positives are of this kind"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["mrr@10", "ndcg@10", "recall@100"],
        metavar="NAME",
        help="metrics, such as mrr@10 or map (default: mrr@10 ndcg@10 recall@100)",
    )
    parser.add_argument(
        "--samples", type=common.positive, default=10_000, help="number of random samples (default: 10000)"
    )
    parser.add_argument(
        "--confidence", type=common.probability, default=0.95, help="confidence of the intervals (default: 0.95)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="file for the numbers")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print the table."""
    from ciea_hf.evaluation.runs import read_run
    from ciea_hf.evaluation.significance import compare_runs
    from ciea_hf.files import write_json

    common.check_output("--output", arguments.output)

    qrels = _qrels(arguments)
    found = compare_runs(
        _check_run(read_run(arguments.run_a), qrels, arguments.run_a),
        _check_run(read_run(arguments.run_b), qrels, arguments.run_b),
        qrels,
        arguments.metrics,
        samples=arguments.samples,
        confidence=arguments.confidence,
        seed=arguments.seed,
    )
    common.write(f"A: {arguments.run_a}\nB: {arguments.run_b}\nqueries: {found[0].queries}\n")
    common.write(_table(found, arguments.confidence))
    if arguments.output:
        write_json(arguments.output, [asdict(comparison) for comparison in found])
    return 0


def _check_run(run: Run, qrels: Mapping[str, Mapping[str, int]], path: Path) -> Run:
    """Check that a run belongs to the judgements, and say how many judged queries it lacks.

    Raises:
        ValueError: If it has none of the judged queries, or none of the judged documents.
    """
    missing = [query for query in qrels if query not in run]
    if len(missing) == len(qrels):
        raise ValueError(f"{path} has none of the {len(qrels)} judged queries, such as {missing[0]!r}")
    judged = {document for row in qrels.values() for document in row}
    if not any(document in judged for scores in run.values() for document in scores):
        raise ValueError(f"{path} has none of the judged documents, such as {next(iter(judged))!r}")
    if missing:
        common.write(
            f"{path}: {len(missing)} of {len(qrels)} judged queries are missing and count as 0: {missing[0]} ..."
        )
    return run


def _qrels(arguments: argparse.Namespace) -> dict[str, dict[str, int]]:
    if Path(arguments.qrels).is_file():
        from ciea_hf.evaluation.runs import read_qrels

        if arguments.kind:
            raise ValueError("--kind requires a data set as --qrels: a qrels file has no kinds of documents")
        return read_qrels(arguments.qrels)
    dataset = loading.load_dataset(arguments.qrels, arguments.split, arguments.format)
    kinds = dataset.query_kinds()
    chosen = {q: row for q, row in dataset.qrels.items() if arguments.kind in (None, kinds.get(q))}
    if not chosen:
        raise ValueError(f"{dataset.name} ({dataset.split}) has no query with positives of kind {arguments.kind!r}")
    return chosen


def _table(found: Sequence[Comparison], confidence: float) -> str:
    from ciea_hf.evaluation.report import metric_title, text_table

    cells = [["metric", "A", "B", "B - A", f"{100 * confidence:g}% interval", "p", "better", "worse"]]
    for one in found:
        numbers = [f"{one.a:.4f}", f"{one.b:.4f}", f"{one.difference:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}"]
        cells.append([metric_title(one.metric), *numbers, f"{one.p_value:.4f}", str(one.better), str(one.worse)])
    return text_table(cells)
