"""Encode a corpus into an index folder, so that searches over it start at once.

An interrupted run continues when the command is repeated. Several processes, also on several machines with a common
folder, may run the same command at once, as torchrun, `accelerate launch` or Slurm start it: each takes shards that no
other one is working on.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.choices import INDEXES
from ciea_hf.commands import common

if TYPE_CHECKING:
    from ciea_hf.retrieval import DocumentView, Encoder
    from ciea_hf.retrieval.location import Location

HELP = "encode a corpus for search"
EXAMPLES = """
  ciea index runs/ciea demo --output demo.index
  torchrun --nproc-per-node 4 -m ciea_hf.cli index runs/ciea big-data --output big.index
  ciea index runs/ciea big-data --output big.index --append --prune   # what is new, what has changed, what is gone
  ciea index runs/ciea big-data --output /shared/big.index --engine ray --address auto --num-gpus-per-worker 1
  ciea index runs/ciea big-data --output s3://bucket/big.index     # credentials as fsspec finds them
  ciea index --verify big.index
  ciea index --output big.index --export vectors.parquet
  ciea index runs/ciea demo --output demo.index --index-type lancedb --uri demo.lance
  ciea search runs/ciea demo.index "a cat beside a train"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help=common.DATASET_HELP)
    parser.add_argument(
        "--output", metavar="INDEX", help="index folder, or its URL: s3://, gs:// and whatever else fsspec supports"
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="encode shards I, I + N, I + 2N and so on alone, counted from 1 (default: all that are missing)",
    )
    parser.add_argument("--append", action="store_true", help="add new documents and replace changed ones")
    parser.add_argument("--prune", action="store_true", help="remove documents that are not in the data set any more")
    parser.add_argument("--verify", metavar="INDEX", help="compare an index with its checksums")
    parser.add_argument("--hybrid", action="store_true", help="index texts and captions with BM25, too")
    parser.add_argument(
        "--index-type",
        dest="index",
        choices=INDEXES,
        default="auto",
        help="kind of index: flat is exact, scan searches by 1-bit codes, the others are engines (default: auto)",
    )
    parser.add_argument("--uri", help="where an engine stores the documents: folder, s3://, http:// or file.db")
    parser.add_argument("--export", type=Path, metavar="PARQUET", help="write id, vector and metadata to a file")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where to encode (default: local)")
    parser.add_argument("--address", help="address of the Ray cluster, or auto (default: a cluster of this machine)")
    for resource, default in (("cpus", 0.5), ("gpus", 0.0)):
        parser.add_argument(
            f"--num-{resource}-per-worker",
            type=common.not_negative,
            default=default,
            metavar="N",
            help=f"{resource[:-1].upper()}s of a Ray worker, or a fraction (default: {default:g})",
        )
    common.add_dataset_arguments(parser)
    common.add_content_argument(parser)
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encode the corpus, or check an index."""
    from ciea_hf.retrieval import encode_shards, prune
    from ciea_hf.retrieval.location import open_location

    if arguments.verify is not None:
        return _verify(arguments.verify)
    common.check_output("--export", arguments.export)
    if arguments.export is not None and arguments.output is not None and arguments.model is None:
        _finish(arguments, open_location(arguments.output))  # of an index that exists
        return 0
    _check(arguments)
    output = open_location(arguments.output)  # fails for an unknown protocol, before anything is loaded
    load = functools.partial(_load, _picklable(arguments))
    options = common.encoding_options(arguments)
    source = {"path": loading.lasting_name(arguments.dataset), "format": arguments.format}
    if arguments.engine == "ray":
        from ciea_hf.retrieval.ray_engine import RayOptions, encode_with_ray

        resources = RayOptions(arguments.address, arguments.num_cpus_per_worker, arguments.num_gpus_per_worker)
        missing = encode_with_ray(load, output, options, source, resources, arguments.append)
        dataset = None
    else:
        model, view = load()
        dataset = view.dataset
        shard, append = arguments.shard, arguments.append
        missing = encode_shards(model, dataset, output, view, options, source, shard, append)
    if missing:
        common.write(f"{output}: {missing} shards are missing")
        return 0
    if arguments.prune:
        removed = prune(output, load()[1].dataset if dataset is None else dataset)
        common.write(f"{removed} documents removed")
    _finish(arguments, output)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Check the arguments of an encoding."""
    for name in ("model", "dataset", "output"):
        if getattr(arguments, name) is None:
            option = "--output" if name == "output" else name.upper()
            raise ValueError(f"{option} is required, unless an index is checked with --verify or written with --export")
    if arguments.shard is not None and arguments.prune:
        raise ValueError("--prune cannot be combined with --shard: prune once, after all shards are complete")
    if arguments.shard is not None and arguments.engine == "ray":
        raise ValueError("--shard cannot be combined with --engine ray, which distributes the shards itself")


def _picklable(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return what [`_load`] needs, in a form that can be sent to other machines."""
    names = ("model", "split", "format", "content", "on_broken_image", "device")
    return {name: getattr(arguments, name) for name in names} | {"dataset": loading.lasting_name(arguments.dataset)}


def _load(names: dict[str, Any]) -> tuple[Encoder, DocumentView]:
    from ciea_hf.retrieval import DocumentView

    dataset = loading.load_dataset(names["dataset"], names["split"], names["format"], corpus_is_enough=True)
    model = loading.load_encoder(names["model"], names["device"])
    return model, DocumentView(dataset, names["content"], on_broken_image=names["on_broken_image"])


def _finish(arguments: argparse.Namespace, output: Location) -> None:
    from ciea_hf.retrieval import load_corpus
    from ciea_hf.retrieval.folder import count_documents
    from ciea_hf.retrieval.indexes.syncing import sync_index
    from ciea_hf.retrieval.location import RemotePath

    sync_index(output, arguments.index, arguments.uri)
    if isinstance(output, RemotePath) and not arguments.hybrid and arguments.export is None:
        # a worker has no use for a local copy of the index
        common.write(f"{output}: {count_documents(output)} documents, complete")
        return
    corpus = load_corpus(output)
    if arguments.hybrid:
        from ciea_hf.retrieval.bm25 import KeywordIndex

        KeywordIndex(corpus, output)
    if arguments.export is not None:
        from ciea_hf.retrieval.export import export_parquet

        common.write(f"{arguments.export}: {export_parquet(corpus, arguments.export)} documents")
    common.write(f"{output}: {len(corpus)} documents, complete")


def _verify(index: str) -> int:
    from ciea_hf.retrieval import verify_corpus
    from ciea_hf.retrieval.location import open_location

    folder = open_location(index)
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
