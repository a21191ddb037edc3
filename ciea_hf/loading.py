"""Loading of data sets and models by name: a folder, a Hub id, or the embedded benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.encoding import Encoder


def load_dataset(name: str, split: str, data_format: str = "auto", corpus_is_enough: bool = False) -> RetrievalDataset:
    """Load a data set by path or Hub id, or the embedded benchmark by the name `demo`.

    Args:
        name: Path, Hub id or `demo`.
        split: Split of the data set.
        data_format: Format of the data set, or `auto`.
        corpus_is_enough: Whether queries and judgements may be missing.

    Raises:
        ValueError: If `name` is empty, and as [`load_retrieval_dataset`].
    """
    if not name:
        raise ValueError("`dataset` must be a folder, a Hub id, or 'demo' for the embedded benchmark; got ''")
    if not sys.stderr.isatty():
        from ciea_hf.utils import import_optional

        import_optional("datasets", extra="eval").disable_progress_bars()
    from ciea_hf.data import load_retrieval_dataset
    from ciea_hf.data.dataset import SHARED_SPLIT
    from ciea_hf.data.loading import open_reader

    splits = open_reader(name, data_format).splits if corpus_is_enough else [split]
    corpus_only = not splits or (split == SHARED_SPLIT and split not in splits)  # the split of an index of a corpus
    return load_retrieval_dataset(name, split=None if corpus_only else split, format=data_format)


def lasting_name(name: str) -> str:
    """Return a data set's name in a form that is valid in any working directory: a folder as its absolute path."""
    from ciea_hf.data.loading import BUILT_IN

    return str(Path(name).resolve()) if name not in BUILT_IN and Path(name).exists() else name


def load_encoder(name: str, device: str | None = None) -> Encoder:
    """Load a CIEA model, or any other model through sentence-transformers.

    A CIEA model followed by further modules of sentence-transformers is also loaded through sentence-transformers.

    Args:
        name: Folder or Hub id.
        device: Device of the model; the first GPU, or else the CPU, if `None`.

    Raises:
        FileNotFoundError: If `name` is a folder without a model, or a path that does not exist.
        ImportError: If the model is not a CIEA model and sentence-transformers is not installed.
        ValueError: If the device is invalid, or the weights cannot be read.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    chosen = _device(device)
    from safetensors import SafetensorError

    try:
        if _model_type(name) == "ciea" and _has_no_further_modules(name):
            from ciea_hf.modeling.modeling_ciea import CIEAModel

            model: Encoder = CIEAModel.from_pretrained(name).eval().to(chosen)
            return model
        from ciea_hf.utils import import_optional

        encoder: Encoder = import_optional("sentence_transformers", extra="eval").SentenceTransformer(
            name, device=chosen
        )
    except SafetensorError as error:
        raise ValueError(
            f"the weights of {name} cannot be read: {error}; is a file truncated, or a Git LFS pointer?"
        ) from error
    return encoder


def _device(name: str | None) -> str:
    """Return the device to use, after checking that it exists."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # torch built without CUDA raises AssertionError
        valid = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        valid += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"--device must be one of {', '.join(valid)} on this machine; got {name!r}") from error
    return name


def _model_type(name: str) -> str | None:
    folder = Path(name)
    if folder.exists():
        if (folder / "config.json").is_file():
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
            return None if kind is None else str(kind)
        if (folder / "modules.json").is_file():
            return None
        raise FileNotFoundError(f"{name} contains no model: neither config.json nor modules.json found")
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise FileNotFoundError(f"model {name} not found")
    from transformers import PretrainedConfig

    content, _ = PretrainedConfig.get_config_dict(name)
    kind = content.get("model_type")
    return None if kind is None else str(kind)


def _has_no_further_modules(name: str) -> bool:
    """Return whether no further modules of sentence-transformers follow a CIEA model."""
    from transformers.utils.hub import cached_file

    path = cached_file(name, "modules.json", _raise_exceptions_for_missing_entries=False)
    return path is None or len(json.loads(Path(path).read_text(encoding="utf-8"))) <= 1
