"""Mine hard negatives: documents that a model ranks high for a query without being relevant to it.

Every labelled positive is removed. The result is a parquet file (query-id, corpus-id, kind, rank) that training reads,
with a JSON file next to it that counts the dropped candidates by reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse


HELP = "mine hard negatives for training"
EXAMPLES = """
  ciea mine runs/ciea/in_batch/best data/webqa --output mined --embeddings mined/embeddings
  accelerate launch training/train.py --preset webqa_multi --stage hard_negatives --negatives mined
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", help=common.DATASET_HELP)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder, or .parquet file")
    common.add_dataset_arguments(parser, split="train")
    parser.add_argument(
        "--depth", type=common.positive, default=100, help="best documents considered per query (default: 100)"
    )
    parser.add_argument(
        "--window", type=int, nargs=2, default=(0, 100), metavar=("START", "END"),
        help="rank range to draw from, END exclusive (default: 0 100)",
    )  # fmt: skip
    parser.add_argument(
        "--negatives-per-kind", type=int, nargs=2, default=(10, 10), metavar=("IMAGES", "TEXTS"),
        help="negatives with and without an image per query (default: 10 10)",
    )  # fmt: skip
    parser.add_argument(
        "--relative-margin",
        type=float,
        metavar="M",
        help="drop documents scoring above the best positive's score times (1 - M)",
    )
    parser.add_argument("--max-score", type=float, metavar="S", help="drop documents scoring above S")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="folder that keeps the embeddings, to resume")
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Mine, write negatives and report, and print the report."""
    from ciea_hf.files import write_json
    from ciea_hf.retrieval import DocumentView
    from ciea_hf.training.data.mining import mine_negatives
    from ciea_hf.training.data.negatives import MiningOptions, save_negatives

    options = MiningOptions(
        depth=arguments.depth,
        window=tuple(arguments.window),
        images=arguments.negatives_per_kind[0],
        texts=arguments.negatives_per_kind[1],
        relative_margin=arguments.relative_margin,
        max_score=arguments.max_score,
        seed=arguments.seed,
    )
    dataset = loading.load_dataset(arguments.dataset, arguments.split, arguments.format)
    model = loading.load_encoder(arguments.model, arguments.device)
    encoding = common.encoding_options(arguments)
    view = DocumentView(dataset, on_broken_image=arguments.on_broken_image)
    found = mine_negatives(model, dataset, options, encoding=encoding, folder=arguments.embeddings, view=view)
    path = save_negatives(found, arguments.output)
    content: dict[str, Any] = {"model": arguments.model, "dataset": dataset.name, "split": dataset.split}
    write_json(path.with_suffix(".json"), content | {"report": found.report})
    for name, count in found.report.items():
        common.write(f"{count:10d}  {name}")
    common.write(str(path))
    return 0
