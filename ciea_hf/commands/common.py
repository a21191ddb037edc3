"""What several commands share: arguments, loading of models and data sets, output."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.retrieval.encoding import EncodingOptions

CONTENT_CHOICES = ("full", "caption", "image")  # of a document
MODEL_HELP = "folder or Hub id of a CIEA model, or of any sentence-transformers model"
DATASET_HELP = "folder or Hub id of a data set, or 'demo' for the embedded benchmark"


def write(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(text + "\n")


def check_output(option: str, path: Path | None) -> None:
    """See that a file can be written, before anything is computed that would be lost.

    Raises:
        OSError: If it cannot.
    """
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"{option}: {path} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{option}: {path} cannot be written: {error.strerror or error}") from error


def write_json(content: Any, path: Path) -> None:
    """Write JSON to a file at once."""
    from ciea_hf.utils import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return value


def probability(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1; got {text!r}")
    return value


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--split`` and ``--format``."""
    parser.add_argument("--split", default="test", help="split of the data set (default: test)")
    parser.add_argument("--format", default="auto", help="format of the data set (default: found out)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--batch-size``."""
    parser.add_argument(
        "--device", help="device of the model, such as cpu or cuda:0 (default: the GPU if there is one)"
    )
    parser.add_argument("--batch-size", type=positive, default=64, help="inputs of one forward pass (default: 64)")


def add_encoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`encoding_options` reads beside the model's arguments."""
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="how embeddings are kept (default: float32)"
    )
    parser.add_argument("--shard-size", type=positive, default=10_000, help="documents of one shard (default: 10000)")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode pictures ahead (default: 1)")


def add_broken_image_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--on-broken-image`, the policy of a `DocumentView`."""
    parser.add_argument(
        "--on-broken-image",
        choices=("fail", "skip", "caption"),
        default="fail",
        help="images that cannot be decoded: fail, skip the document, or use its caption alone (default: fail)",
    )


def add_content_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--content`, which a ``DocumentView`` takes."""
    parser.add_argument(
        "--content",
        choices=CONTENT_CHOICES,
        default="full",
        help="which part of the documents the model gets (default: full)",
    )


def encoding_options(arguments: argparse.Namespace) -> EncodingOptions:
    """Collect the options of :func:`add_encoding_arguments` and :func:`add_model_arguments`."""
    from ciea_hf.retrieval.encoding import EncodingOptions

    return EncodingOptions(
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        shard_size=arguments.shard_size,
        num_workers=arguments.workers,
        show_progress_bar=sys.stderr.isatty(),
    )
