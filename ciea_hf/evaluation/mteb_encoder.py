"""CIEA in the Massive Text Embedding Benchmark: an encoder for `mteb.evaluate`, and its `ModelMeta`.

mteb assumes that a sentence-transformers model supports text only unless its metadata list other modalities, and
silently drops images. The metadata here list both modalities.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ciea_hf.modeling import CIEAModel
from ciea_hf.retrieval.documents import model_input
from ciea_hf.retrieval.encoding import EncodingOptions, encode_inputs
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.precision import truncate
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

TASKS = ("WebQAT2ITRetrieval", "WebQAT2TRetrieval", "EDIST2ITRetrieval")
"""Tasks of mteb on the data sets of the paper."""

# Part of a data set's name -> tasks of mteb that are built from it.
_TASKS_BY_DATASET = {"webqa": TASKS[:2], "edis": TASKS[2:]}


class MTEBEncoder:
    """A CIEA model as mteb's `EncoderProtocol`.

    Args:
        model: CIEA model.
        meta: `ModelMeta` of mteb; built from the model if `None`.
        name: Name for a built `meta`, `organization/model`.
        embed_dim: Number of dimensions to keep, from the first; all if `None`.

    Examples:
        >>> import mteb  # doctest: +SKIP
        >>> encoder = MTEBEncoder(CIEAModel.from_pretrained("runs/ciea"))  # doctest: +SKIP
        >>> mteb.evaluate(encoder, mteb.get_tasks(tasks=["WebQAT2ITRetrieval"]))  # doctest: +SKIP
    """

    def __init__(
        self, model: CIEAModel, meta: Any = None, name: str = "ciea-hf/local", embed_dim: int | None = None
    ) -> None:
        self.model = model
        self.embed_dim = embed_dim
        self.mteb_model_meta = meta or model_meta(model, name)

    @classmethod
    def load(
        cls,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,
        folder: str | None = None,
        embed_dim: int | None = None,
        **kwargs: Any,
    ) -> MTEBEncoder:
        """Load from the Hub by name, or from `folder`: the loader of [`model_meta`].

        Args:
            model_name: Name of the model on the Hub.
            revision: Commit on the Hub.
            device: Device of the model; the CPU if `None`.
            folder: Folder of the model, in the place of the Hub.
            embed_dim: Number of dimensions to keep, from the first; all if `None`.
            **kwargs: Arguments of `CIEAModel.from_pretrained`, such as `dtype` and `trust_remote_code`.
        """
        model = CIEAModel.from_pretrained(folder or model_name, revision=None if folder else revision, **kwargs)
        return cls(model.eval().to(device or "cpu"), name=model_name, embed_dim=embed_dim)

    def encode(
        self,
        inputs: Iterable[Mapping[str, list[Any]]],
        *,
        prompt_type: Any = None,
        batch_size: int = 32,
        **_kwargs: Any,
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Embed the batches of a data loader of mteb.

        Args:
            inputs: Batches with `"text"`, `"image"` or both, each a list.
            prompt_type: `"query"` or `"document"`; documents if `None`.
            batch_size: Number of inputs per forward pass.
            **_kwargs: Further arguments of mteb (task, split, progress bar), which are ignored.

        Returns:
            (inputs, D), normalised.

        Raises:
            ValueError: If the embeddings have fewer dimensions than `embed_dim`.
        """
        is_query = prompt_type is not None and str(getattr(prompt_type, "value", prompt_type)) == "query"
        encode = self.model.encode_query if is_query else self.model.encode_document
        size = None if is_query else EncodingOptions(batch_size).chunk_size
        rows = np.concatenate([encode_inputs(encode, chunk, batch_size) for chunk in _chunks(inputs, size)])
        return truncate(rows, self.embed_dim, normalize=True)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compute the cosine similarities (a, b) of normalised embeddings (a, D) and (b, D)."""
        return torch.as_tensor(embeddings1).float() @ torch.as_tensor(embeddings2).float().T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compute the cosine similarities (a,) of corresponding normalised embeddings."""
        return self.model.similarity_pairwise(embeddings1, embeddings2)


def model_meta(model: CIEAModel, name: str, folder: str | None = None, revision: str | None = None) -> Any:
    """Describe a model for mteb, including modalities and training data.

    Args:
        model: CIEA model.
        name: Name of the model, `organization/model`.
        folder: Folder that the model is loaded from; the Hub, by `name`, if `None`.
        revision: Commit on the Hub, or any string that distinguishes versions, under which mteb stores results; the
            model's fingerprint if `None`.

    Returns:
        An `mteb.ModelMeta`. Its training data are those in the model's card, or unknown (`None`) if the card lists
        none. mteb loads image models from their meta only if torchvision is installed; an [`MTEBEncoder`] of a loaded
        model does not need it.
    """
    mteb = import_optional("mteb", extra="mteb")
    tokens: Any = model.get_input_embeddings()
    weights = sum(parameter.numel() for parameter in model.parameters())
    sizes = [parameter.numel() * parameter.element_size() for parameter in model.parameters()]
    return mteb.models.ModelMeta(
        loader=MTEBEncoder.load,
        loader_kwargs={"folder": folder} if folder else {},
        name=name,
        revision=revision or model_fingerprint(model),
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=weights,
        n_embedding_parameters=tokens.weight.numel(),
        memory_usage_mb=round(sum(sizes) / 2**20, 1),
        max_tokens=model.processor.text_limit,
        embed_dim=model.config.hidden_size,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers", "Sentence Transformers", "safetensors"],
        reference=f"https://huggingface.co/{name}" if folder is None else None,
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=training_datasets(folder or model.config.name_or_path),
        modalities=["text", "image"],
    )


def training_datasets(source: str) -> set[str] | None:
    """Return the training data sets in a model's card, with mteb's names where it has them; `None` without any.

    Args:
        source: Folder or Hub id of the model; empty if it has neither.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import EntryNotFoundError

    card = Path(source) / "README.md"
    if not source or (Path(source).exists() and not card.is_file()):
        return None
    try:
        named = ModelCard.load(card if card.is_file() else source, ignore_metadata_errors=True).data.datasets or []
    except EntryNotFoundError:
        return None
    found: set[str] = set()
    for dataset in [named] if isinstance(named, str) else named:
        known = [task for part, tasks in _TASKS_BY_DATASET.items() if part in dataset.lower() for task in tasks]
        found.update(known or [dataset])
    return found or None


def _chunks(batches: Iterable[Mapping[str, list[Any]]], size: int | None) -> Iterator[list[Any]]:
    """Yield inputs in chunks as `ciea_hf.evaluation.evaluate` forms them; one chunk if `size` is `None`."""
    waiting: list[Any] = []
    for batch in batches:
        waiting += _documents(batch)
        while size is not None and len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _documents(batch: Mapping[str, list[Any]]) -> list[Any]:
    size = len(next(iter(batch.values())))
    texts, images = batch.get("text") or [None] * size, batch.get("image") or [None] * size
    return [model_input(text, image) for text, image in zip(texts, images, strict=True)]
