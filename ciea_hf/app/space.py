"""A Hugging Face Space: the page with its models and indexes, ready to be uploaded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ciea_hf import loading
from ciea_hf._version import __version__
from ciea_hf.app.systems import index_folder
from ciea_hf.files import atomic_folder
from ciea_hf.model_cards.run_files import is_repository_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.retrieval import EncodedCorpus

GRADIO = "6.31.0"  # the tested version, which the card asks for
REQUIREMENT = f"ciea-hf[app]=={__version__}"
LARGE_FILES = ("*.safetensors", "*.npy", "*.parquet", "*.bin", "*.model")
_APP = '''"""The page of this Space; see `ciea demo-app --help`."""

import os
import sys
from pathlib import Path

from ciea_hf.cli import main

os.chdir(Path(__file__).resolve().parent)
host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # which Spaces set
port = os.environ.get("GRADIO_SERVER_PORT", "7860")
sys.exit(main(["demo-app", *{arguments}, "--host", host, "--port", port]))
'''
_BODY = """
# {title}

Search texts and captioned images with a text, an image, or both, and see why an image was found.

| model | index | documents |
|---|---|---:|
{rows}

Written by `ciea space`. On your own machine: `pip install -r requirements.txt`, then `python app.py`.
"""


@dataclass(frozen=True)
class SpaceOptions:
    """What a Space is called, and how it is installed.

    Attributes:
        title: Title of the Space.
        requirement: Requirement that installs this package, with the extra `app`.
        license: Licence of the Space, as an identifier of the Hub; `None` leaves it out.
    """

    title: str = "CIEA search"
    requirement: str = REQUIREMENT
    license: str | None = None


@dataclass(frozen=True)
class _Part:
    """A model and its index, as the Space names them, and as the card does."""

    model: str
    index: str
    row: str


def write_space(
    folder: Path, pairs: Sequence[tuple[str, str]], dataset: str | None = None, options: SpaceOptions | None = None
) -> list[str]:
    """Write a Space.

    Local models, indexes and data sets are copied, data sets with their images embedded. Hub ids stay as they are; the
    Space loads them when it starts.

    Args:
        folder: New folder.
        pairs: Model and index, or two of them.
        dataset: Data set with the images; the one that the first index records if `None`.
        options: Title and requirement.

    Returns:
        The names of the files, sorted.

    Raises:
        FileExistsError: If the folder exists and is not empty.
        FileNotFoundError: If a model or an index does not exist.
        ValueError: If an index does not match its model, or there is no data set with the images.
    """
    options = options or SpaceOptions()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists: choose a new folder")
    with atomic_folder(folder) as target:
        images = _add_images(target, pairs[0][1], dataset)
        parts = [_add_pair(target, model, index, images, number) for number, (model, index) in enumerate(pairs, 1)]
        files = {
            "app.py": _APP.format(arguments=_arguments(parts, images)),
            "requirements.txt": _requirements(options, images),
            "README.md": _card(parts, images, options),
            ".gitattributes": "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in LARGE_FILES),
        }
        for name, content in files.items():
            (target / name).write_text(content, encoding="utf-8")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _add_images(target: Path, index: str, dataset: str | None) -> str:
    """Copy the data set with the images, if it is on this machine, and return its name in the Space."""
    from ciea_hf.data import save_retrieval_dataset
    from ciea_hf.data.loading import BUILT_IN
    from ciea_hf.retrieval import load_corpus

    corpus = load_corpus(index_folder(index))
    name = dataset or corpus.source.get("path")
    if name is None:
        raise ValueError(f"{index} does not record its data set: name the one with the images with --corpus")
    if name in BUILT_IN or (not Path(name).exists() and is_repository_id(name)):
        return name
    found = (
        loading.indexed_dataset(corpus)
        if dataset is None
        else loading.load_dataset(dataset, _split(corpus), corpus_is_enough=True)
    )
    save_retrieval_dataset({found.split: found}, target / "data", f"# {found.name}")
    return "data"


def _add_pair(target: Path, model: str, index: str, images: str, number: int) -> _Part:
    """Copy a model and its index, if they are on this machine."""
    from ciea_hf.retrieval import load_corpus
    from ciea_hf.retrieval.location import is_url

    local = Path(model).exists() or not is_repository_id(model)
    corpus = load_corpus(index_folder(index), loading.load_encoder(model) if local else None)
    name = Path(model).name
    model_name, index_name = model, index
    if local:
        model_name = f"models/{number}/{name}"
        shutil.copytree(model, target / model_name, ignore=shutil.ignore_patterns(".*", "checkpoints"))
    if is_url(index) or Path(index).exists():
        index_name = f"indexes/{number}"
        corpus.settings["source"] = {"path": images, "split": _split(corpus)}
        corpus.save(target / index_name)
    row = f"| {_linked(model) if not local else name} | {_linked(index) if index == index_name else index_name} |"
    return _Part(model_name, index_name, f"{row} {len(corpus):,} |")


def _split(corpus: EncodedCorpus) -> str:
    return str(corpus.source.get("split", "test"))


def _arguments(parts: Sequence[_Part], images: str) -> list[str]:
    first, *others = parts
    compared = [word for part in others for word in ("--compare", part.model, part.index)]
    return [first.model, first.index, *compared, "--corpus", images]


def _requirements(options: SpaceOptions, images: str) -> str:
    from ciea_hf.data.loading import BUILT_IN

    needed = "app,demo" if images in BUILT_IN else "app"  # the embedded benchmark is built when the Space starts
    return options.requirement.replace("[app]", f"[{needed}]", 1) + "\n"


def _card(parts: Sequence[_Part], images: str, options: SpaceOptions) -> str:
    """Return the card: the header that the Hub reads, and a table of models and indexes."""
    header: dict[str, Any] = {
        "title": options.title, "emoji": "\N{LEFT-POINTING MAGNIFYING GLASS}", "colorFrom": "green", "colorTo": "blue",
        "sdk": "gradio", "sdk_version": GRADIO, "app_file": "app.py", "pinned": False,
    }  # fmt: skip
    if options.license is not None:
        header["license"] = options.license
    models = [part.model for part in parts if is_repository_id(part.model)]
    datasets = [name for name in (images, *(part.index for part in parts)) if _is_on_hub(name)]
    header |= {name: values for name, values in (("models", models), ("datasets", datasets)) if values}
    body = _BODY.format(title=options.title, rows="\n".join(part.row for part in parts))
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{body}"


def _is_on_hub(name: str) -> bool:
    return is_repository_id(name) and not name.startswith("indexes/")


def _linked(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})"
