"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import TYPE_CHECKING

from ciea_hf.choices import CONTENT, DATASET_FORMATS, ON_BROKEN_IMAGE, PRECISIONS
from ciea_hf.reporting import error_line, printable

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.retrieval.encoding import EncodingOptions

LONGEST_NUMBER = 18  # digits
MODEL_HELP = "folder or Hub id of a CIEA model, or of any sentence-transformers model"
DATASET_HELP = "folder or Hub id of a data set, or 'demo' for the embedded benchmark"


def describe(parser: argparse.ArgumentParser, description: str, examples: str) -> None:
    """Set description and examples of a parser."""
    parser.description = description.strip()
    parser.epilog = f"examples:\n{examples.strip(chr(10))}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def write(text: str) -> None:
    """Write a line to standard output. Control characters, which a terminal would obey, are shown as escapes."""
    shown = printable(text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def check_output(option: str, path: Path | None) -> None:
    """Check that a file can be written, before its content is computed.

    Raises:
        OSError: If it cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"{option} must be a file; {path} is a folder")
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{option}: {path} cannot be written: {error_line(error)}") from error


def check_new_folder(option: str, folder: Path) -> None:
    """Check that a folder can be written without touching what is there.

    Raises:
        ValueError: If it is a file, or a folder that is not empty.
        OSError: If it cannot be read.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{option}: {folder} already exists: choose a new folder")


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    value = int(text) if text.isdecimal() and len(text) <= LONGEST_NUMBER else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text[:40]!r}")
    return value


def count(text: str) -> int:
    """Parse an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0; got {text!r}")
    return int(text)


def not_negative(text: str) -> float:
    """Parse a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0; got {text!r}")
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


def port_number(text: str) -> int:
    """Parse a port; 0 chooses a free one."""
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 65535; got {text!r}")
    return value


def add_address_arguments(parser: argparse.ArgumentParser, port: int) -> None:
    """Add `--host` and `--port`, the default of which is `port`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=port_number, default=port, help=f"port to listen on; 0 chooses one (default: {port})"
    )


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--format`."""
    formats = ("auto", *DATASET_FORMATS)
    parser.add_argument("--format", choices=formats, default="auto", help="format of the data set (default: auto)")


def add_dataset_arguments(parser: argparse.ArgumentParser, split: str = "test") -> None:
    """Add `--split` and `--format`."""
    parser.add_argument("--split", default=split, help=f"split of the data set (default: {split})")
    add_format_argument(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--device` and `--batch-size`."""
    parser.add_argument("--device", help="device of the model, such as cpu or cuda:0 (default: the GPU, if available)")
    parser.add_argument("--batch-size", type=positive, default=64, help="inputs per forward pass (default: 64)")


def add_workers_argument(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """Add `--workers`, whose default of `None` is that of `EncodingOptions`."""
    shown = "one per core, at most 4" if default is None else default
    parser.add_argument("--workers", type=count, default=default, help=f"decoding threads (default: {shown})")


def add_encoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that [`encoding_options`] reads, except those of [`add_model_arguments`]."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="precision of stored embeddings (default: float32)"
    )
    parser.add_argument("--truncate-dim", type=positive, metavar="D", help="store the first D dimensions alone")
    parser.add_argument("--shard-size", type=positive, default=10_000, help="documents per shard (default: 10000)")
    add_workers_argument(parser)


def add_broken_image_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--on-broken-image`, the policy of a `DocumentView`."""
    parser.add_argument(
        "--on-broken-image",
        choices=ON_BROKEN_IMAGE,
        default="fail",
        help="undecodable images: fail, skip the document, or use its caption alone (default: fail)",
    )


def add_content_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--content`, the content of a `DocumentView`."""
    parser.add_argument(
        "--content",
        choices=CONTENT,
        default="full",
        help="'caption' drops all images, 'image' the captions of images (default: full)",
    )


def encoding_options(arguments: argparse.Namespace) -> EncodingOptions:
    """Collect the options of [`add_encoding_arguments`] and [`add_model_arguments`]."""
    from ciea_hf.retrieval.encoding import EncodingOptions

    return EncodingOptions(
        batch_size=arguments.batch_size,
        precision=arguments.precision,
        truncate_dim=arguments.truncate_dim,
        shard_size=arguments.shard_size,
        num_workers=arguments.workers,
        show_progress_bar=sys.stderr.isatty(),
    )
