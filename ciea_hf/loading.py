"""Loading of data sets and models by name: a folder, a Hub id, or the embedded benchmark."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.retrieval import DocumentView, EncodedCorpus
    from ciea_hf.retrieval.encoding import Encoder

KINDS = ("text", "image")
"""Kinds of inputs with which a model is tried."""


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


def indexed_view(corpus: EncodedCorpus) -> DocumentView:
    """Open the documents that an index was built from, as they were embedded.

    Args:
        corpus: The index.

    Raises:
        ValueError: If the index does not record its data set, or the data set has changed since; and as
            [`load_dataset`].
    """
    from ciea_hf.choices import CONTENT
    from ciea_hf.retrieval import DocumentView

    source = corpus.source
    if "path" not in source:
        raise ValueError("the index does not know the path of its data set, which holds the images and the queries")
    dataset = load_dataset(source["path"], source["split"], source.get("format", "auto"), corpus_is_enough=True)
    for content in CONTENT:
        view = DocumentView(dataset, content, on_broken_image=corpus.settings.get("on_broken_image", "fail"))
        if view.fingerprint == corpus.settings["corpus"]:
            return view
    raise ValueError(f"{source['path']} has changed since it was indexed: run `ciea index --append`")


def indexed_dataset(corpus: EncodedCorpus) -> RetrievalDataset:
    """Load the data set that an index was built from; see [`indexed_view`]."""
    return indexed_view(corpus).dataset


def lasting_name(name: str) -> str:
    """Return a data set's name in a form that is valid in any working directory: a folder as its absolute path."""
    from ciea_hf.data.loading import BUILT_IN

    return str(Path(name).resolve()) if name not in BUILT_IN and Path(name).exists() else name


def load_encoder(name: str, device: str | None = None, kinds: Sequence[str] = KINDS) -> Encoder:
    """Load a CIEA model, or any other model through sentence-transformers.

    A CIEA model followed by further modules of sentence-transformers is also loaded through sentence-transformers.

    Args:
        name: Folder or Hub id.
        device: Device of the model; the first GPU, or else the CPU, if `None`.
        kinds: Kinds of inputs that will be embedded, of which a CIEA model embeds one each to check its files.

    Raises:
        FileNotFoundError: If `name` is a folder without a model, or a path that does not exist.
        ImportError: If the model is not a CIEA model and sentence-transformers is not installed.
        ValueError: If the device is invalid, a file of the model cannot be read, or the model cannot embed a text or
            an image.
    """
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    from ciea_hf.model_files import check_model_folder

    chosen = _device(device)
    check_model_folder(Path(name))
    if _model_type(name) == "ciea" and _has_no_further_modules(name):
        return _load_ciea(name, chosen, kinds)
    from ciea_hf.utils import import_optional

    library = import_optional("sentence_transformers", extra="eval")
    is_ciea = _model_type(name) == "ciea"
    options = {"ignore_mismatched_sizes": True} if is_ciea else {}
    with _explained(name), without_report():
        encoder: Any = library.SentenceTransformer(name, device=chosen, model_kwargs=options)
        refuse_random_weights(name, getattr(encoder[0], "model", None))
        taken = getattr(encoder, "modalities", ["text"])
        _check_encoding(encoder, taken if is_ciea or "text" not in taken else ["text"])
    loaded: Encoder = encoder
    return loaded


def _load_ciea(name: str, device: str, kinds: Sequence[str]) -> CIEAModel:
    """Load a CIEA model; an error names the files that caused it."""
    from ciea_hf.modeling.configuration_ciea import CIEAConfig
    from ciea_hf.modeling.modeling_ciea import CIEAModel

    with _explained(name, "config.json"):
        CIEAConfig.from_pretrained(name)
    with _explained(name, "weights"), without_report():
        model: CIEAModel = CIEAModel.from_pretrained(name, ignore_mismatched_sizes=True)
        refuse_random_weights(name, model)
    with _explained(name, "tokenizer or image processor"):
        _ = model.processor
    with _explained(name):
        model.eval().to(device)  # type: ignore[no-untyped-call]
        _check_encoding(model, kinds)
    return model


def refuse_random_weights(name: str, model: Any, new: Sequence[str] = ()) -> None:
    """Refuse a model whose files lack weights, because random ones have taken their place.

    Args:
        name: Folder or Hub id, for the error.
        model: Model returned by `CIEAModel.from_pretrained`; others do not record what they lack.
        new: Prefixes of weights that are meant to be new.

    Raises:
        ValueError: If weights are missing.
    """
    absent = [weight for weight in getattr(model, "missing_weights", ()) if not weight.startswith(tuple(new))]
    if absent:
        raise ValueError(
            f"its weights lack {len(absent)} tensors that config.json asks for, such as {absent[0]!r}; random values "
            f"would take their place in {name}"
        )


def _check_encoding(encoder: Any, kinds: Sequence[str]) -> None:
    """Embed an input of each kind once, so that what is wrong with the files of a model is found while they are known.

    Args:
        encoder: Encoder.
        kinds: `"text"`, `"image"` or both; of other kinds, which some models of sentence-transformers take, none.
    """
    from PIL import Image

    for kind, sample in (("text", "a"), ("image", Image.new("RGB", (64, 64)))):
        if kind in kinds:
            encoder.encode_document([sample], show_progress_bar=False)


@contextmanager
def without_report() -> Iterator[None]:
    """Hide transformers' table of weights of a CIEA model; `CIEAModel.from_pretrained` warns in one line."""

    def shown(record: logging.LogRecord) -> bool:
        return "CIEAModel LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(shown)
    try:
        yield
    finally:
        logger.removeFilter(shown)


@contextmanager
def _explained(name: str, part: str = "") -> Iterator[None]:
    """Turn any error while a user's model is loaded into one that names the model, and the part that is read."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        kind = type(error).__name__
        hint = "; is a file truncated, or a Git LFS pointer?" if kind == "SafetensorError" else ""
        shown = reason if isinstance(error, ValueError | OSError) else f"{kind}: {reason}"
        where = f" ({part})" if part else ""
        raise ValueError(f"the model {name} cannot be loaded{where}: {shown}{hint}") from error


def _device(name: str | None) -> str:
    """Return the device to use, after checking that it exists."""
    import torch

    from ciea_hf.modeling.evaluation_mode_ciea import usable_device

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        usable_device(name)
    except ValueError as error:
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
