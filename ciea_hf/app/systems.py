"""What the page searches: a model with its index, and the images of the documents."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.model_cards.run_files import is_repository_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval import Retriever

logger = logging.getLogger(__name__)

MAX_SYSTEMS = 2
_EXAMPLES = 3


@dataclass(frozen=True)
class System:
    """A model with its index.

    Attributes:
        name: Name on the page and in the API.
        retriever: Retriever over the index.
        image_of: Function from a document id to its image, or `None` if there is none.
        examples: Texts of queries that the page suggests.
    """

    name: str
    retriever: Retriever
    image_of: Callable[[str], Image.Image | None]
    examples: Sequence[str] = ()

    @property
    def model(self) -> Any:
        """The model that embeds the queries."""
        return self.retriever.model

    @property
    def can_explain(self) -> bool:
        """Whether the model is a CIEA model, whose scores can be traced to patches of an image."""
        return getattr(getattr(self.model, "config", None), "model_type", None) == "ciea"


def open_system(model: str, index: str, dataset: str | None = None, device: str | None = None) -> System:
    """Open a model with its index.

    Args:
        model: Folder or Hub id of the model.
        index: Folder written by `ciea index`, or the Hub id of a data set repository that holds such a folder.
        dataset: Data set with the images of the documents; the one that the index records if `None`.
        device: Device of the model; the first GPU, or else the CPU, if `None`.

    Raises:
        FileNotFoundError: If the model or the index does not exist.
        ValueError: If the index is incomplete, or another model encoded it.
    """
    from ciea_hf.retrieval.images import image_lookup
    from ciea_hf.serve.searching import open_retriever

    folder = index_folder(index)
    encoder = loading.load_encoder(model, device)
    retriever = open_retriever(encoder, str(folder))
    data = _dataset(folder, dataset)
    name = Path(model).name
    if data is None:
        return System(name, retriever, lambda _: None)
    return System(name, retriever, image_lookup(data), _examples(data))


def index_folder(index: str) -> Path:
    """Return the folder of an index; an index on the Hub, or at a URL, is downloaded to the cache.

    Raises:
        FileNotFoundError: If it is neither an index folder nor in the form of a Hub id.
        HubError: If the Hub rejects the request or is unreachable.
    """
    from ciea_hf.retrieval.folder import is_encoded_corpus
    from ciea_hf.retrieval.location import is_url
    from ciea_hf.retrieval.mirror import local_folder

    if is_url(index):
        return local_folder(index)
    folder = Path(index)
    if folder.exists() or not is_repository_id(index):
        if not is_encoded_corpus(folder):
            raise FileNotFoundError(f"{index} is not an index; `ciea index MODEL DATASET --output INDEX` writes one")
        return folder
    from huggingface_hub import snapshot_download

    from ciea_hf.hub.retry import call_with_retries

    location = call_with_retries(
        lambda: snapshot_download(index, repo_type="dataset"), index, failed="was not downloaded"
    )
    if not is_encoded_corpus(location):
        raise FileNotFoundError(f"the repository {index} holds no index")
    return Path(location)


def unique_names(systems: Sequence[System], models: Sequence[str]) -> list[System]:
    """Return systems whose names differ: those of folders with equal names are the models as they were given."""
    from dataclasses import replace

    if len({system.name for system in systems}) == len(systems):
        return list(systems)
    numbered = [f"{model} ({number})" for number, model in enumerate(models, start=1)]
    names = models if len(set(models)) == len(models) else numbered
    return [replace(system, name=name) for system, name in zip(systems, names, strict=True)]


def _dataset(index: Path, name: str | None) -> RetrievalDataset | None:
    """Return the data set with the images; `None`, with a warning, if the one that the index records has gone."""
    from ciea_hf.retrieval import load_corpus

    corpus = load_corpus(index)
    if name is not None:
        split = corpus.source.get("split", "test")
        return loading.load_dataset(name, split, corpus_is_enough=True)
    try:
        return loading.indexed_dataset(corpus)
    except (ValueError, OSError) as error:
        logger.warning("%s: the page shows no images: %s", index, error)
        return None


def _examples(dataset: RetrievalDataset) -> list[str]:
    texts = (text for text in dataset.query_texts.values() if text and text.strip())
    return [text for text, _ in zip(dict.fromkeys(texts), range(_EXAMPLES), strict=False)]
