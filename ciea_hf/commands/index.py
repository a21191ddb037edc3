"""Encode a data set's corpus once, so that searches over it start at once.

An interrupted run goes on where it stopped when the command is given again.

  ciea index runs/ciea demo --output demo.index
  ciea search runs/ciea demo.index "a cat beside a train"
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse

HELP = "encode a corpus into a folder that search reads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", help=common.DATASET_HELP)
    parser.add_argument("--output", type=Path, metavar="FOLDER", required=True, help="where the embeddings are written")
    common.add_dataset_arguments(parser)
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encode the corpus."""
    from ciea_hf.retrieval import encode_corpus

    dataset = common.load_dataset(arguments.dataset, arguments.split, arguments.format)
    model = common.load_encoder(arguments.model, arguments.device)
    source = {"path": arguments.dataset, "format": arguments.format}
    corpus = encode_corpus(model, dataset, arguments.output, options=common.encoding_options(arguments), source=source)
    common.write(f"{len(corpus)} documents in {len(corpus.shards)} shards: {arguments.output}")
    return 0
