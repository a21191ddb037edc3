"""Loading of data sets and models by name: a folder, a Hub id, or the embedded benchmark."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval import DocumentView, EncodedCorpus
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


def load_encoder(name: str, device: str | None = None) -> Encoder:
    """Load a CIEA model, or any other model through sentence-transformers.

    A CIEA model followed by further modules of sentence-transformers is also loaded through sentence-transformers.

    Args:
        name: Folder or Hub id.
        device: Device of the model; the first GPU, or else the CPU, if `None`.

    Raises:
        FileNotFoundError: If `name` is a folder without a model, or a path that does not exist.
        ImportError: If the model is not a CIEA model and sentence-transformers is not installed.
        ValueError: If the device is invalid, a file of the model cannot be read, or the model cannot embed a text or
            an image.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    chosen = _device(device)
    check_model_folder(Path(name))
    with _explained(name):
        if _model_type(name) == "ciea" and _has_no_further_modules(name):
            from PIL import Image

            from ciea_hf.modeling.modeling_ciea import CIEAModel

            model, info = CIEAModel.from_pretrained(name, output_loading_info=True)
            _refuse_random_weights(name, info)
            encoder: Encoder = model.eval().to(chosen)
            _check_encoding(encoder, ["a", Image.new("RGB", (64, 64))])
            return encoder
        from ciea_hf.utils import import_optional

        encoder = import_optional("sentence_transformers", extra="eval").SentenceTransformer(name, device=chosen)
        _check_encoding(encoder, ["a"])
    return encoder


def _check_encoding(encoder: Encoder, inputs: Sequence[Any]) -> None:
    """Embed inputs once, so that whatever is wrong with the files of a model is found while they are known."""
    encoder.encode_document(inputs, show_progress_bar=False)


def check_model_folder(folder: Path) -> None:
    """Check that the files of a model's folder can be read; a folder that does not exist is not checked.

    Raises:
        OSError: If a file of weights cannot be read; safetensors would report it as missing.
        ValueError: If a file is not a JSON object or list, or names code or kernels from elsewhere; the message names
            the file.
    """
    for file in folder.glob("*.safetensors") if folder.is_dir() else []:
        if file.is_file():
            file.open("rb").close()
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not valid JSON: {error}") from error
        if not isinstance(content, dict | list):
            raise ValueError(f"{file} must hold a JSON object; got {str(content)[:80]}")  # noqa: TRY004
        if file.name == "config.json":
            for implementation in _attention_implementations(content):
                if "/" in str(implementation):
                    raise ValueError(f"{file}: `attn_implementation` {implementation!r} would fetch code from the Hub")


def _attention_implementations(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key in ("attn_implementation", "_attn_implementation"):
                yield value
            else:
                yield from _attention_implementations(value)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn any error while a user's model is loaded into one that names the model."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        kind = type(error).__name__
        hint = "; is a file truncated, or a Git LFS pointer?" if kind == "SafetensorError" else ""
        shown = reason if isinstance(error, ValueError | OSError) else f"{kind}: {reason}"
        raise ValueError(f"the model {name} cannot be loaded: {shown}{hint}") from error


def _refuse_random_weights(name: str, info: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights its files lack, because random ones would take their place."""
    absent = [*sorted(info.get("missing_keys") or ()), *(key[0] for key in info.get("mismatched_keys") or ())]
    if absent:
        raise ValueError(
            f"its weights lack {len(absent)} tensors that config.json asks for, such as {absent[0]!r}; random values "
            f"would take their place in {name}"
        )


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
