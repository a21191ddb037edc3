"""Embed queries and documents with any encoder, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from ciea_hf.modeling.images_ciea import names_image
from ciea_hf.modeling.inputs_ciea import input_kind
from ciea_hf.retrieval.precision import check_precision, truncate
from ciea_hf.utils import prefetch_map, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval.documents import DocumentView

DOCUMENTS_PER_TASK = 4  # few, so that threads that decode large images finish at the same time
MAX_WORKERS = 4  # each holds an image at full size
BATCHES_PER_CHUNK = 4  # enough to group inputs by kind and length, few enough to stay in memory


class Encoder(Protocol):
    """What encoding needs of a model: CIEAModel, a SentenceTransformer, or a wrapper with these two methods.

    An encoder with an attribute `takes_mixed_inputs = True` receives inputs of all kinds in one call; others receive
    one call per kind. An encoder with a method `preprocess_image` receives its results instead of decoded images.
    """

    def encode_query(self, inputs: Any, **kwargs: Any) -> Any:
        """Embed queries."""

    def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
        """Embed documents."""


@dataclass(frozen=True)
class EncodingOptions:
    """How documents are encoded.

    Attributes:
        batch_size: Number of inputs per forward pass.
        precision: Precision of stored embeddings: `"float32"`, `"float16"`, `"int8"` (a scale per document) or
            `"binary"` (signs). Scores are computed from what is stored, in full precision.
        truncate_dim: Number of dimensions to store, from the first; all if `None`. Queries are truncated likewise.
        shard_size: Number of documents per shard, the unit of work and of resuming.
        num_workers: Number of threads that decode images ahead of the model, by default one per core, up to
            `MAX_WORKERS`; 0 decodes between batches.
        show_progress_bar: Whether to show a progress bar over the documents.
        normalize: Whether to scale embeddings to unit length; if `None`, unless the model scores by dot product.

    Raises:
        ValueError: If a value is invalid.
    """

    batch_size: int = 64
    precision: str = "float32"
    truncate_dim: int | None = None
    shard_size: int = 10_000
    num_workers: int | None = None
    show_progress_bar: bool = False
    normalize: bool | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision)
        for name in ("batch_size", "shard_size", "truncate_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1; got {value}")

    @property
    def decoding_threads(self) -> int:
        """Number of threads that decode images."""
        return min(usable_cores(), MAX_WORKERS) if self.num_workers is None else self.num_workers

    @property
    def chunk_size(self) -> int:
        """Number of documents that are decoded and passed to the model at once."""
        return BATCHES_PER_CHUNK * self.batch_size


class EncodedDocuments(NamedTuple):
    """Embeddings of consecutive documents.

    Attributes:
        embeddings: (documents, D) float32; rows of zeros for documents without an embedding.
        missing: Positions in the corpus of documents without an embedding: nothing is left of them in the chosen
            content, or their image was skipped.
    """

    embeddings: NDArray[np.float32]
    missing: list[int]


def encode_queries(
    model: Encoder, queries: Sequence[Any], batch_size: int = 64, truncate_dim: int | None = None
) -> NDArray[np.float32]:
    """Embed queries in float32, normalised unless the model scores by dot product.

    Args:
        model: Encoder.
        queries: Texts, images (PIL images or paths of type `Path`), or dicts of `"text"` and `"image"`.
        batch_size: Number of queries per forward pass.
        truncate_dim: Number of dimensions to keep, from the first; all if `None`.

    Returns:
        (queries, D).
    """
    normalize = normalizes(model)
    rows = encode_inputs(model.encode_query, list(queries), batch_size, normalize, _takes_mixed_inputs(model))
    return truncate(rows, truncate_dim, normalize)


def encode_documents(
    model: Encoder,
    view: DocumentView,
    start: int,
    stop: int,
    options: EncodingOptions,
    report: Callable[[int], None] | None = None,
) -> EncodedDocuments:
    """Embed consecutive documents.

    Args:
        model: Encoder.
        view: Documents as inputs.
        start: First position.
        stop: Position after the last one.
        options: Batch size and so on; `precision` and `shard_size` are not used here.
        report: Called with the number of documents after each chunk, for a progress bar; a bar over these documents is
            shown if `None` and the options ask for it.

    Returns:
        Embeddings in float32.

    Raises:
        ValueError: If the model does not support a document, or an embedding is not finite; the message names the
            document.
    """
    blocks: list[NDArray[np.float32]] = []
    missing: list[int] = []
    position = start
    view = view.preprocessed_for(model)
    for inputs in _chunks(view, start, min(stop, len(view)), options, report):
        ids = view.ids[position : position + len(inputs)]
        blocks.append(_encode_chunk(model, inputs, ids, options))
        missing += [position + i for i, item in enumerate(inputs) if item is None]
        position += len(inputs)
    return EncodedDocuments(np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32), missing)


def _encode_chunk(
    model: Encoder, inputs: list[Any], ids: Sequence[str], options: EncodingOptions
) -> NDArray[np.float32]:
    kinds = {_kind(item) for item in inputs}
    for kind, modality in (("image", "image"), ("image,text", ("image", "text"))):
        if kind in kinds and hasattr(model, "supports") and not model.supports(modality):
            raise ValueError(f"the model does not support {kind} documents; set `content` to 'caption' or 'image'")
    try:
        normalize = normalizes(model) if options.normalize is None else options.normalize
        rows = encode_inputs(model.encode_document, inputs, options.batch_size, normalize, _takes_mixed_inputs(model))
    except (ValueError, TypeError) as error:
        raise type(error)(f"documents {ids[0]!r} to {ids[-1]!r}: {error}") from error
    invalid = ~np.isfinite(rows).all(axis=1)
    if invalid.any():
        raise ValueError(f"the embedding of document {ids[int(invalid.argmax())]!r} is not finite")
    return truncate(rows, options.truncate_dim, normalize)


def _chunks(
    view: DocumentView, start: int, stop: int, options: EncodingOptions, report: Callable[[int], None] | None
) -> Iterator[list[Any]]:
    """Yield decoded inputs in chunks of a few batches, with a progress bar if the options ask for one."""
    chunks = _decoded_chunks(view, start, stop, options)
    if report is not None or not options.show_progress_bar:
        for inputs in chunks:
            yield inputs
            if report is not None:
                report(len(inputs))
        return
    from tqdm.auto import tqdm

    with tqdm(total=stop - start, desc="Encoding", unit="doc", dynamic_ncols=True) as bar:
        for inputs in chunks:
            yield inputs
            bar.update(len(inputs))


def _decoded_chunks(view: DocumentView, start: int, stop: int, options: EncodingOptions) -> Iterator[list[Any]]:
    """Yield chunks of inputs while threads decode the next chunk."""
    size = options.chunk_size
    tasks = []
    for first in range(start, stop, size):
        end = min(first + size, stop)
        tasks += [(row, min(row + DOCUMENTS_PER_TASK, end)) for row in range(first, end, DOCUMENTS_PER_TASK)]
    ahead = -(-size // DOCUMENTS_PER_TASK)
    decoded = prefetch_map(lambda task: view.batch(*task), tasks, options.decoding_threads, ahead)
    chunk: list[Any] = []
    for (_, end), inputs in zip(tasks, decoded, strict=True):
        chunk += inputs
        if end == stop or (end - start) % size == 0:
            yield chunk
            chunk = []


def encode_inputs(
    encode: Callable[..., Any],
    inputs: list[Any],
    batch_size: int = 64,
    normalize: bool = True,
    mixed: bool = False,
) -> NDArray[np.float32]:
    """Embed inputs of several kinds.

    Args:
        encode: `encode_query` or `encode_document` of a model.
        inputs: Texts (never read as paths, even if an image file of that name exists), images, dicts of both, and
            `None` for a document without content, whose row is zeros.
        batch_size: Number of inputs per forward pass.
        normalize: Whether to scale embeddings to unit length.
        mixed: Whether `encode` accepts inputs of several kinds in one call; otherwise it is called once per kind.

    Returns:
        (inputs, D), in the order of the inputs.
    """
    groups: dict[str, list[int]] = {}
    inputs = [as_text(item) if isinstance(item, str) else item for item in inputs]
    for position, item in enumerate(inputs):
        kind = _kind(item)
        if kind is not None:
            groups.setdefault("mixed" if mixed else kind, []).append(position)
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
    """Return a text that no model reads as an image path, even if a file of that name exists."""
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


def _kind(item: Any) -> str | None:
    """Return the kind of an input of `encode_document`; `None` for a document without content."""
    if item is None:
        return None
    if isinstance(item, dict):
        return input_kind(item.get("text"), item.get("image"))
    return input_kind(item, None) if isinstance(item, str) else input_kind(None, item)


def normalizes(model: Encoder) -> bool:
    """Return whether embeddings are normalised: yes, unless the model scores by dot product."""
    return str(getattr(model, "similarity_fn_name", "cosine")) != "dot"


def _takes_mixed_inputs(model: Encoder) -> bool:
    return bool(getattr(model, "takes_mixed_inputs", False))
