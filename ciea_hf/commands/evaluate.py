"""Evaluate a model on a data set: MRR, NDCG, Recall, hit rate and MAP, overall and by kind of positive.

MODEL may be 'bm25', which ranks by the words of texts and captions. A baseline is 'bm25', another model, or 'caption'
or 'image', which is MODEL with that content of the documents.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf import loading
from ciea_hf.choices import CONTENT
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation import EvaluationResult

HELP = "evaluate a model on a data set"
EXAMPLES = """
  ciea evaluate runs/ciea demo --split test --output results.json --run-file ciea.run
  ciea evaluate runs/ciea demo --content caption                      # without the images
  ciea evaluate runs/ciea demo --baselines bm25 caption runs/marvel   # compared with other systems
  ciea evaluate runs/ciea demo --drop-captions 0.5                    # without half of the captions
"""
BM25 = "bm25"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"{common.MODEL_HELP}, or 'bm25'")
    parser.add_argument("dataset", metavar="DATASET", help=common.DATASET_HELP)
    common.add_dataset_arguments(parser)
    common.add_content_argument(parser)
    parser.add_argument("--baselines", nargs="+", default=[], metavar="SYSTEM", help="baselines to compare with")
    parser.add_argument(
        "--ks",
        type=common.positive,
        nargs="+",
        default=[1, 10, 100],
        help="cut-offs of the metrics (default: 1 10 100)",
    )
    parser.add_argument("--top-k", type=common.positive, help="depth of the run (default: 100, or the highest cut-off)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="file for all metrics")
    parser.add_argument("--run-file", type=Path, metavar="RUN", help="TREC run file for the rankings")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="folder that keeps the embeddings, to resume")
    for verb, action in (("drop", "remove"), ("swap", "exchange")):
        parser.add_argument(
            f"--{verb}-captions",
            type=common.probability,
            default=0.0,
            metavar="P",
            help=f"{action} this share of the captions (default: 0)",
        )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the corrupted captions (default: 0)")
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the tables and write the files."""
    from ciea_hf.evaluation.runs import check_ids, write_run
    from ciea_hf.files import write_json

    common.check_output("--output", arguments.output)
    common.check_output("--run-file", arguments.run_file)
    dataset = loading.load_dataset(arguments.dataset, arguments.split, arguments.format)
    if arguments.run_file:
        check_ids([*dataset.qrels, *dataset.corpus_ids])
    result = _evaluate(arguments.model, arguments.content, dataset, arguments, arguments.embeddings)
    common.write(f"{result.dataset} ({result.split}), {result.counts['documents']} documents\n")
    common.write(result.table())
    common.write("\n" + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in result.seconds.items()))
    if arguments.run_file:
        write_run(result.run, arguments.run_file, tag=Path(arguments.model).name)
    content = {"model": arguments.model, **result.to_dict()}
    if arguments.output:  # before the baselines, one of which may fail
        write_json(arguments.output, content)
    baselines = {name: _baseline(name, dataset, arguments) for name in arguments.baselines}
    if baselines:
        title = _title(arguments.model, arguments.content)
        _write_comparison({f"{title} (evaluated)" if title in baselines else title: result, **baselines})
    if arguments.output and baselines:
        others = {name: baseline.to_dict() for name, baseline in baselines.items()}
        write_json(arguments.output, {**content, "baselines": others})
    return 0


def _baseline(name: str, dataset: RetrievalDataset, arguments: argparse.Namespace) -> EvaluationResult:
    if name in CONTENT:
        return _evaluate(arguments.model, name, dataset, arguments)
    return _evaluate(name, arguments.content, dataset, arguments)


def _evaluate(
    name: str, content: str, dataset: RetrievalDataset, arguments: argparse.Namespace, folder: Path | None = None
) -> EvaluationResult:
    from ciea_hf.evaluation import evaluate, score_run
    from ciea_hf.evaluation.evaluator import run_depth
    from ciea_hf.evaluation.robustness import corrupt_captions
    from ciea_hf.retrieval import DocumentView

    captions, noise = None, {}
    if arguments.drop_captions or arguments.swap_captions:
        captions = corrupt_captions(
            dataset, drop=arguments.drop_captions, swap=arguments.swap_captions, seed=arguments.seed
        )
        noise = {name: getattr(arguments, name) for name in ("drop_captions", "swap_captions", "seed")}
    if name == BM25:
        from ciea_hf.evaluation.baselines import bm25_run

        depth, start = run_depth(arguments.ks, arguments.top_k), time.perf_counter()
        found = bm25_run(dataset, depth, _words(dataset, content, captions))
        result = score_run(found, dataset, arguments.ks, {"search": round(time.perf_counter() - start, 3)})
        return replace(result, settings={"system": BM25, "content": content, "top_k": depth, **noise})
    result = evaluate(
        loading.load_encoder(name, arguments.device),
        dataset,
        content=DocumentView(dataset, content, captions, arguments.on_broken_image),
        ks=arguments.ks,
        top_k=arguments.top_k,
        options=common.encoding_options(arguments),
        folder=folder,
    )
    return replace(result, settings={**result.settings, **noise})


def _words(
    dataset: RetrievalDataset, content: str, captions: Sequence[str | None] | None
) -> Sequence[str | None] | None:
    """Return the texts that BM25 ranks; images without their captions have none."""
    if content != "image":
        return captions
    from ciea_hf.retrieval.records import document_records

    records = document_records(dataset)
    texts = [record.text for record in records] if captions is None else captions
    return [None if record.kind == "image" else text for record, text in zip(records, texts, strict=True)]


def _title(model: str, content: str) -> str:
    name = Path(model).name
    return name if content == "full" else f"{name} ({content})"


def _write_comparison(systems: dict[str, EvaluationResult]) -> None:
    from ciea_hf.evaluation.report import metrics_table

    first = next(iter(systems.values()))
    for kind in [None, *first.by_kind]:
        queries = first.counts["queries" if kind is None else f"queries/{kind}"]
        rows = {name: found.metrics if kind is None else found.by_kind[kind] for name, found in systems.items()}
        common.write("\n" + metrics_table(rows, label=f"{kind or 'all'} queries ({queries})"))
