"""Run mteb tasks with images, or a data set of your own as such a task.

Without --tasks and --dataset: WebQAT2ITRetrieval, WebQAT2TRetrieval and EDIST2ITRetrieval.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse

HELP = "run mteb tasks"
EXAMPLES = """
  ciea mteb runs/ciea --tasks WebQAT2ITRetrieval EDIST2ITRetrieval --output results    # downloads the data
  ciea mteb runs/ciea --dataset demo
"""
SHOWN = {"mrr_at_10": "mrr@10", "ndcg_at_10": "ndcg@10", "recall_at_1": "recall@1", "recall_at_10": "recall@10"}
SHOWN |= {"recall_at_100": "recall@100"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a CIEA model")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="names of mteb tasks")
    parser.add_argument("--dataset", action="append", default=[], metavar="DATASET", help=common.DATASET_HELP)
    common.add_dataset_arguments(parser)
    common.add_model_arguments(parser)
    parser.add_argument("--name", metavar="ORG/MODEL", help="name of the model in the results")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for the results, in the format of mteb")
    parser.add_argument(
        "--predictions", type=Path, metavar="FOLDER", help="folder for the rankings, in the format of mteb"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the tasks and print their scores."""
    from ciea_hf import CIEAModel
    from ciea_hf.evaluation.mteb_encoder import TASKS, MTEBEncoder, model_meta
    from ciea_hf.evaluation.mteb_task import retrieval_task
    from ciea_hf.files import disk_errors_named
    from ciea_hf.utils import import_optional

    if arguments.name and (arguments.name.count("/") != 1 or not all(arguments.name.split("/"))):
        raise ValueError(f"--name must be ORG/MODEL; got {arguments.name!r}")
    mteb = import_optional("mteb", extra="mteb")
    model = loading.load_encoder(arguments.model, arguments.device)
    if not isinstance(model, CIEAModel):
        raise TypeError(f"{arguments.model} is not a CIEA model: use the command line of mteb")
    folder = arguments.model if Path(arguments.model).exists() else None
    name = arguments.name or (f"local/{Path(folder).resolve().name}" if folder else arguments.model)
    tasks = [retrieval_task(loading.load_dataset(d, arguments.split, arguments.format)) for d in arguments.dataset]
    named = arguments.tasks or ([] if tasks else list(TASKS))
    tasks += [_task(mteb, task) for task in named]
    with disk_errors_named(arguments.output or arguments.predictions or "the cache of mteb"):
        results = mteb.evaluate(
            MTEBEncoder(model, model_meta(model, name, folder)),
            tasks,
            encode_kwargs={"batch_size": arguments.batch_size, "show_progress_bar": sys.stderr.isatty()},
            cache=mteb.ResultCache(cache_path=arguments.output) if arguments.output else None,
            prediction_folder=arguments.predictions,
            overwrite_strategy="always" if arguments.predictions else "only-missing",  # kept results have no rankings
            show_progress_bar=sys.stderr.isatty(),
        )
    common.write(_table(results))
    return 0


def _task(mteb: Any, name: str) -> Any:
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise ValueError(f"unknown mteb task {name!r}: {error.args[0]}") from None


def _table(results: Any) -> str:
    from ciea_hf.evaluation.report import metrics_table

    rows: dict[str, dict[str, float]] = {}
    for result in results.task_results:
        for split, subsets in result.scores.items():
            for scores in subsets:
                shown = {ours: scores[theirs] for theirs, ours in SHOWN.items() if theirs in scores}
                rows[f"{result.task_name} ({split})"] = shown
    return metrics_table(rows, label="task")
