"""Encode a corpus into an index folder, so that searches over it start at once.

An interrupted run continues when the command is repeated. Several processes, also on several machines with a common
folder, may run the same command at once, as torchrun, `accelerate launch` or Slurm start it: each takes shards that no
other one is working on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf import loading
from ciea_hf.choices import INDEXES
from ciea_hf.commands import common

if TYPE_CHECKING:
    from ciea_hf.retrieval import DocumentView, Encoder, EncodingOptions

HELP = "encode a corpus for search"
EXAMPLES = """
  ciea index runs/ciea demo --output demo.index
  torchrun --nproc-per-node 4 -m ciea_hf.cli index runs/ciea big-data --output big.index
  ciea index runs/ciea big-data --output big.index --append --prune   # what is new, what has changed, what is gone
  ciea index --verify big.index
  ciea index --output big.index --export vectors.parquet
  ciea index runs/ciea demo --output demo.index --index lancedb --uri demo.lance
  ciea search runs/ciea demo.index "a cat beside a train"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help=common.DATASET_HELP)
    parser.add_argument("--output", type=Path, metavar="INDEX", help="index folder")
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="encode shards I, I + N, I + 2N and so on alone, counted from 1 (default: all that are missing)",
    )
    parser.add_argument("--append", action="store_true", help="add new documents and replace changed ones")
    parser.add_argument("--prune", action="store_true", help="remove documents that are not in the data set any more")
    parser.add_argument("--verify", type=Path, metavar="INDEX", help="compare an index with its checksums")
    parser.add_argument("--hybrid", action="store_true", help="index texts and captions with BM25, too")
    parser.add_argument(
        "--index",
        choices=INDEXES,
        default="auto",
        help="kind of index: flat is exact, scan searches by 1-bit codes, the others are engines (default: auto)",
    )
    parser.add_argument("--uri", help="where an engine stores the documents: folder, s3://, http:// or file.db")
    parser.add_argument("--export", type=Path, metavar="PARQUET", help="write id, vector and metadata to a file")
    common.add_dataset_arguments(parser)
    common.add_content_argument(parser)
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encode the corpus, or check an index."""
    if arguments.verify is not None:
        return _verify(arguments.verify)
    common.check_output("--export", arguments.export)
    if arguments.export is not None and arguments.output is not None and arguments.model is None:
        _finish(arguments)  # of an index that exists
        return 0
    for name in ("model", "dataset", "output"):
        if getattr(arguments, name) is None:
            option = "--output" if name == "output" else name.upper()
            raise ValueError(f"{option} is required, unless an index is checked with --verify or written with --export")
    if arguments.shard is not None and arguments.prune:
        raise ValueError("--prune cannot be combined with --shard: prune once, after all shards are complete")
    from ciea_hf.retrieval import DocumentView

    dataset = loading.load_dataset(arguments.dataset, arguments.split, arguments.format, corpus_is_enough=True)
    model = loading.load_encoder(arguments.model, arguments.device)
    view = DocumentView(dataset, arguments.content, on_broken_image=arguments.on_broken_image)
    missing = _encode(arguments, model, view, common.encoding_options(arguments))
    if missing:
        common.write(f"{arguments.output}: {len(dataset.corpus)} documents, {missing} shards are missing")
        return 0
    if arguments.prune:
        from ciea_hf.retrieval import prune

        common.write(f"{prune(arguments.output, dataset)} documents removed")
    _finish(arguments)
    return 0


def _encode(arguments: argparse.Namespace, model: Encoder, view: DocumentView, options: EncodingOptions) -> int:
    from ciea_hf.retrieval import encode_shards

    source = {"path": loading.lasting_name(arguments.dataset), "format": arguments.format}
    return encode_shards(
        model, view.dataset, arguments.output, view, options, source, arguments.shard, append=arguments.append
    )


def _finish(arguments: argparse.Namespace) -> None:
    from ciea_hf.retrieval import load_corpus
    from ciea_hf.retrieval.indexes.syncing import sync_index

    sync_index(arguments.output, arguments.index, arguments.uri)
    corpus = load_corpus(arguments.output)
    if arguments.hybrid:
        from ciea_hf.retrieval.bm25 import KeywordIndex

        KeywordIndex(corpus, arguments.output)
    if arguments.export is not None:
        from ciea_hf.retrieval.export import export_parquet

        common.write(f"{arguments.export}: {export_parquet(corpus, arguments.export)} documents")
    common.write(f"{arguments.output}: {len(corpus)} documents, complete")


def _verify(folder: Path) -> int:
    from ciea_hf.retrieval import verify_corpus

    damaged = verify_corpus(folder)
    if damaged:
        further = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise ValueError(f"{damaged[0]}{further}: delete the damaged files and repeat `ciea index`")
    common.write(f"{folder}: all files match their checksums")
    return 0


def _shard(text: str) -> tuple[int, int]:
    number, _, processes = text.partition("/")
    if not (number.isdecimal() and processes.isdecimal() and 1 <= int(number) <= int(processes)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N; got {text!r}")
    return int(number) - 1, int(processes)
