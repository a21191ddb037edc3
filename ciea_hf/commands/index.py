"""Encode a corpus into a folder, so that searches over it start at once.

An interrupted run continues when the command is repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ciea_hf import loading
from ciea_hf.commands import common

HELP = "encode a corpus for search"
EXAMPLES = """
  ciea index runs/ciea demo --output demo.index
  ciea index runs/ciea big-data --output big.index --shard 1/4    # one of four processes that fill the folder
  ciea search runs/ciea demo.index "a cat beside a train"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", help=common.DATASET_HELP)
    parser.add_argument("--output", type=Path, metavar="FOLDER", required=True, help="folder of the embeddings")
    parser.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="encode shards I, I + N, I + 2N and so on, counted from 1 (default: all)",
    )
    common.add_dataset_arguments(parser)
    common.add_content_argument(parser)
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encode the corpus."""
    from ciea_hf.retrieval import DocumentView, encode_shards

    dataset = loading.load_dataset(arguments.dataset, arguments.split, arguments.format, corpus_is_enough=True)
    model = loading.load_encoder(arguments.model, arguments.device)
    source = {"path": loading.lasting_name(arguments.dataset), "format": arguments.format}
    options = common.encoding_options(arguments)
    view = DocumentView(dataset, arguments.content, on_broken_image=arguments.on_broken_image)
    missing = encode_shards(model, dataset, arguments.output, view, options, source, arguments.shard)
    state = f"{missing} shards are missing" if missing else "complete"
    common.write(f"{arguments.output}: {len(dataset.corpus)} documents, {state}")
    return 0


def _shard(text: str) -> tuple[int, int]:
    number, _, processes = text.partition("/")
    if not (number.isdecimal() and processes.isdecimal() and 1 <= int(number) <= int(processes)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N; got {text!r}")
    return int(number) - 1, int(processes)
