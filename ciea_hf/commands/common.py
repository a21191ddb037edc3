"""What several commands share: arguments, loading of models and data sets, output."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.encoding import Encoder, EncodingOptions

DEMO = "demo"
PARTS = ("full", "caption", "image")  # of a document
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
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def probability(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
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
    """Add ``--on-broken-image``, which a ``DocumentView`` takes."""
    parser.add_argument(
        "--on-broken-image",
        choices=("fail", "caption"),
        default="fail",
        help="what a picture does that cannot be decoded: stop, or leave the document its caption (default: fail)",
    )


def add_documents_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--documents``, which a ``DocumentView`` takes."""
    parser.add_argument(
        "--documents", choices=PARTS, default="full", help="which part of the documents the model gets (default: full)"
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


def load_dataset(name: str, split: str, data_format: str = "auto", corpus_is_enough: bool = False) -> RetrievalDataset:
    """Load a data set by path or Hub id, or the embedded benchmark by the name ``demo``.

    Args:
        name: Path, id or ``demo``.
        split: Of the data set.
        data_format: Its format.
        corpus_is_enough: Whether a corpus may stand alone, without queries and judgements.
    """
    if not sys.stderr.isatty():
        from ciea_hf.utils import require

        require("datasets", extra="eval").disable_progress_bars()
    if name == DEMO:
        from ciea_hf.demo.benchmark import load_benchmark

        return load_benchmark(split)
    from ciea_hf.data import load_retrieval_dataset
    from ciea_hf.data.dataset import SHARED_SPLIT
    from ciea_hf.data.loading import open_source

    there = open_source(name, data_format).splits if corpus_is_enough else [split]
    alone = not there or (split == SHARED_SPLIT and split not in there)  # an index was made of a corpus alone
    return load_retrieval_dataset(name, split=None if alone else split, format=data_format)


def load_encoder(name: str, device: str | None = None) -> Encoder:
    """Load a CIEA model, or any other model through sentence-transformers.

    A CIEA model that further modules of sentence-transformers follow is loaded by sentence-transformers, too.

    Args:
        name: Folder or Hub id.
        device: Where to put it; the first GPU, or else the CPU, if None.

    Raises:
        FileNotFoundError: If ``name`` is a folder without a model, or a path that does not exist.
        ImportError: If the model is none of ours and sentence-transformers is not installed.
        ValueError: If there is no such device, or the weights cannot be read.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    chosen = _device(device)
    from safetensors import SafetensorError

    try:
        if _model_type(name) == "ciea" and _stands_alone(name):
            from ciea_hf import CIEAModel

            model: Encoder = CIEAModel.from_pretrained(name).eval().to(chosen)
            return model
        from ciea_hf.utils import require

        encoder: Encoder = require("sentence_transformers", extra="eval").SentenceTransformer(name, device=chosen)
    except SafetensorError as error:
        raise ValueError(
            f"the weights of {name} cannot be read: {error}; a file that was not copied whole, or a pointer of Git LFS "
            "in its place?"
        ) from error
    return encoder


def _device(name: str | None) -> str:
    """The device to use: the one that is named, if it is there."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without CUDA raises the second
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"--device must be one of {', '.join(there)} here, got {name!r}") from error
    return name


def _model_type(name: str) -> str | None:
    folder = Path(name)
    if folder.exists():
        if (folder / "config.json").is_file():
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
            return None if kind is None else str(kind)
        if (folder / "modules.json").is_file():
            return None
        raise FileNotFoundError(f"{name} holds no model: neither config.json nor modules.json")
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise FileNotFoundError(f"there is no model at {name}")
    from transformers import PretrainedConfig

    content, _ = PretrainedConfig.get_config_dict(name)
    kind = content.get("model_type")
    return None if kind is None else str(kind)


def _stands_alone(name: str) -> bool:
    """Whether a CIEA model is all that a folder or repository holds, and no module of sentence-transformers follows."""
    from transformers.utils.hub import cached_file

    path = cached_file(name, "modules.json", _raise_exceptions_for_missing_entries=False)
    return path is None or len(json.loads(Path(path).read_text(encoding="utf-8"))) <= 1
