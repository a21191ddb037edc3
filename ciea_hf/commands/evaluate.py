"""Evaluate a model on a data set: MRR, NDCG, Recall, hit rate and MAP, overall and by kind of positive.

ciea evaluate runs/ciea demo --split test --output results.json --run-file ciea.run
ciea evaluate runs/ciea demo --documents caption     # the same model without the pictures
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse

HELP = "score a model on a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", help=common.DATASET_HELP)
    common.add_dataset_arguments(parser)
    parser.add_argument(
        "--documents",
        choices=("full", "caption", "image"),
        default="full",
        help="which part of the documents the model gets (default: full)",
    )
    parser.add_argument(
        "--ks", type=common.positive, nargs="+", default=[1, 10, 100], help="cut-offs (default: 1 10 100)"
    )
    parser.add_argument("--top-k", type=common.positive, help="depth of the run (default: 100, or the highest cut-off)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write all metrics here")
    parser.add_argument("--run-file", type=Path, metavar="RUN", help="write the rankings here, as a TREC run file")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="keep embeddings here, to resume from")
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, common.write the files."""
    from ciea_hf.evaluation import evaluate
    from ciea_hf.evaluation.runs import write_run

    dataset = common.load_dataset(arguments.dataset, arguments.split, arguments.format)
    model = common.load_encoder(arguments.model, arguments.device)
    result = evaluate(
        model,
        dataset,
        documents=arguments.documents,
        ks=arguments.ks,
        top_k=arguments.top_k,
        options=common.encoding_options(arguments),
        folder=arguments.embeddings,
    )
    common.write(f"{result.dataset} ({result.split}), {result.counts['documents']} documents\n")
    common.write(result.table())
    common.write("\n" + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in result.seconds.items()))
    if arguments.output:
        common.write_json({"model": arguments.model, **result.to_dict()}, arguments.output)
    if arguments.run_file:
        write_run(result.run, arguments.run_file, tag=Path(arguments.model).name)
    return 0
