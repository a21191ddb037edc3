"""Mine hard negatives: documents that a model ranks high for a query without being relevant to it.

Every labelled positive is removed. The result is a parquet file (query-id, corpus-id, kind, rank) that training reads:

  ciea mine runs/ciea/in_batch/best data/webqa --output mined --embeddings mined/embeddings
  accelerate launch training/train.py --preset webqa_multi --stage hard_negatives --negatives mined

How many candidates were dropped, and why, is written beside it and shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse


HELP = "mine hard negatives for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", help=common.DATASET_HELP)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder, or a .parquet file")
    parser.add_argument("--split", default="train", help="split whose queries are mined for (default: train)")
    parser.add_argument("--format", default="auto", help="format of the data set (default: found out)")
    parser.add_argument(
        "--depth", type=common.positive, default=100, help="best documents looked at for each query (default: 100)"
    )
    parser.add_argument(
        "--window", type=int, nargs=2, default=(0, 100), metavar="RANK",
        help="draw from the ranks from the first, counted from 0, to before the second (default: 0 100)",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=10, help="negatives with an image for each query (default: 10)")
    parser.add_argument("--texts", type=int, default=10, help="negatives without one (default: 10)")
    parser.add_argument(
        "--relative-margin",
        type=float,
        metavar="M",
        help="drop what scores above the best positive's score times 1 - M",
    )
    parser.add_argument("--max-score", type=float, metavar="S", help="drop what scores above this")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="keep embeddings here, to resume from")
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Mine, write the file and the report, and show it."""
    from ciea_hf.retrieval import DocumentView
    from ciea_hf.training.data.mining import mine_negatives
    from ciea_hf.training.data.negatives import MiningOptions, save_negatives

    options = MiningOptions(
        depth=arguments.depth,
        window=tuple(arguments.window),
        images=arguments.images,
        texts=arguments.texts,
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
    common.write_json(content | {"report": found.report}, path.with_suffix(".json"))
    for name, count in found.report.items():
        common.write(f"{count:10d}  {name}")
    common.write(str(path))
    return 0
