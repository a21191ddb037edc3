"""Embed queries and documents with any encoder, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ciea_hf.modeling.inputs_ciea import names_image
from ciea_hf.utils import prefetch_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval.documents import DocumentRecord, DocumentView

DTYPES = ("float32", "float16")
CHUNK = 4  # batches decoded at once: enough to group by kind and length, few enough to stay in memory


class Encoder(Protocol):
    """What encoding needs of a model: CIEAModel, a SentenceTransformer, or a wrapper with these two methods."""

    def encode_query(self, inputs: Any, **kwargs: Any) -> Any:
        """Embed queries."""

    def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
        """Embed documents."""


@dataclass(frozen=True)
class EncodingOptions:
    """How documents are encoded.

    Attributes:
        batch_size: Inputs of one forward pass.
        dtype: How embeddings are kept, ``"float32"`` or ``"float16"``. Scores are computed in fp32 either way.
        shard_size: Documents of one shard, the unit of resuming.
        num_workers: Threads that decode pictures ahead of the model; 0 decodes between batches.
        show_progress_bar: Show a bar over the documents.
    """

    batch_size: int = 64
    dtype: str = "float32"
    shard_size: int = 10_000
    num_workers: int = 1
    show_progress_bar: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        for name in ("batch_size", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")


def encode_queries(model: Encoder, queries: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
    """Embed queries as fp32 rows, normalised unless the model scores by dot product."""
    return encode_inputs(model.encode_query, list(queries), batch_size, normalizes(model))


def encode_documents(
    model: Encoder, view: DocumentView, records: Sequence[DocumentRecord], start: int, options: EncodingOptions
) -> NDArray[np.floating]:
    """Embed one shard: the documents from position ``start`` on, at most ``options.shard_size``.

    Args:
        model: The encoder.
        view: The documents as inputs.
        records: The documents' ids, for errors.
        start: First position.
        options: Batch size, type, shard size and so on.

    Returns:
        (documents, D) in ``options.dtype``, normalised unless the model scores by dot product.

    Raises:
        ValueError: If an embedding is not finite; the message names the document.
    """
    stop = min(start + options.shard_size, len(view))
    chunks, done = [], start
    for inputs in _chunks(view, start, stop, options):
        chunk = _encode_chunk(model, inputs, records[done : done + len(inputs)], options.batch_size)
        chunks.append(chunk.astype(options.dtype))
        done += len(chunk)
    return np.concatenate(chunks)


def _encode_chunk(
    model: Encoder, inputs: list[Any], records: Sequence[DocumentRecord], batch_size: int
) -> NDArray[np.float32]:
    for kind, modality in (("image", "image"), ("image,text", ("image", "text"))):
        if hasattr(model, "supports") and any(_kind(item) == kind for item in inputs) and not model.supports(modality):
            raise ValueError(
                f"this model takes no {kind} documents; choose which part it gets: `documents` 'caption' or 'image'"
            )
    try:
        rows = encode_inputs(model.encode_document, inputs, batch_size, normalizes(model))
    except (ValueError, TypeError) as error:
        raise type(error)(f"documents {records[0].id!r} to {records[-1].id!r}: {error}") from error
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        raise ValueError(f"the embedding of document {records[int(broken.argmax())].id!r} is not finite")
    return rows


def _chunks(view: DocumentView, start: int, stop: int, options: EncodingOptions) -> Iterator[list[Any]]:
    """Decoded inputs, in chunks of a few batches."""
    size = CHUNK * options.batch_size
    bounds = [(first, min(first + size, stop)) for first in range(start, stop, size)]
    chunks = prefetch_map(lambda bound: view.batch(*bound), bounds, options.num_workers)
    if not options.show_progress_bar:
        yield from chunks
        return
    from tqdm.auto import tqdm

    with tqdm(total=stop - start, desc="Encoding", unit="doc", dynamic_ncols=True) as bar:
        for inputs in chunks:
            yield inputs
            bar.update(len(inputs))


def encode_inputs(
    encode: Callable[..., Any], inputs: list[Any], batch_size: int = 64, normalize: bool = True
) -> NDArray[np.float32]:
    """Embed inputs of mixed kinds, one call for each kind: not every model takes mixed batches.

    Args:
        encode: ``encode_query`` or ``encode_document`` of a model.
        inputs: Texts (those that name a picture's file, too), pictures, dicts of both, and None for a document of which
            nothing is left: it becomes zeros.
        batch_size: Inputs of one forward pass.
        normalize: Scale embeddings to length 1.

    Returns:
        (inputs, D), in the order of the inputs.
    """
    groups: dict[str, list[int]] = {}
    inputs = [as_text(item) if isinstance(item, str) else item for item in inputs]
    for position, item in enumerate(inputs):
        groups.setdefault(_kind(item), []).append(position)
    groups.pop("nothing", None)
    found = {
        kind: _embed(encode, [inputs[position] for position in positions], batch_size, normalize)
        for kind, positions in groups.items()
    }
    sample = next(iter(found.values())) if found else _embed(encode, ["nothing"], 1, normalize)  # for its width
    rows = np.zeros((len(inputs), sample.shape[1]), dtype=np.float32)
    for kind, embeddings in found.items():
        rows[groups[kind]] = embeddings
    return rows


def as_text(text: str) -> str:
    """Write a text so that no model takes it for a picture's path, even where there happens to be one of its name."""
    return f" {text} " if names_image(text) else text


def _embed(encode: Callable[..., Any], inputs: list[Any], batch_size: int, normalize: bool) -> NDArray[np.float32]:
    embeddings = encode(
        inputs,
        batch_size=batch_size,
        convert_to_tensor=True,
        normalize_embeddings=normalize,
        show_progress_bar=False,
    )
    rows: NDArray[np.float32] = torch.as_tensor(embeddings).float().cpu().numpy()
    return rows


def _kind(item: Any) -> str:
    if item is None:
        return "nothing"
    if isinstance(item, str):
        return "text"
    return "image,text" if isinstance(item, dict) else "image"


def normalizes(model: Encoder) -> bool:
    """Whether the model scores by cosine, so that its embeddings are normalised: any but a dot-product model does."""
    return str(getattr(model, "similarity_fn_name", "cosine")) != "dot"
