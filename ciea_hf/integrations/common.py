"""What the integrations share: documents of a framework as inputs of a model, and a retriever over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.loading import load_encoder
from ciea_hf.modeling.errors_ciea import place
from ciea_hf.modeling.images_ciea import load_image
from ciea_hf.retrieval import DocumentRecord, EncodedCorpus, Retriever
from ciea_hf.retrieval.documents import model_input
from ciea_hf.retrieval.encoding import encode_inputs, normalizes
from ciea_hf.retrieval.segment import make_segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ciea_hf.retrieval.encoding import Encoder

CHUNK = 256  # documents that are read before they are embedded


class Entry(NamedTuple):
    """A document of a framework.

    Attributes:
        id: Its id.
        text: Text or caption, or `None`.
        image: Image: a PIL image, a path, encoded bytes or a data URI; `None` for a text.
        metadata: Further fields.
    """

    id: str
    text: str | None
    image: Any
    metadata: Mapping[str, Any] = {}


def resolve_model(model: Encoder | str) -> Encoder:
    """Return a model; a string is the folder or Hub id to load it from."""
    return load_encoder(model) if isinstance(model, str) else model


def embed_entries(model: Encoder, entries: Sequence[Entry], batch_size: int = 32) -> NDArray[np.float32]:
    """Embed documents; text and image of a document go into one embedding.

    Args:
        model: Encoder.
        entries: The documents.
        batch_size: Number of documents per forward pass.

    Returns:
        (documents, D) float32.

    Raises:
        ValueError: If a document has neither text nor image, or its image cannot be decoded; the message names it.
        FileNotFoundError: If the file of an image does not exist; the message names the document.
    """
    import numpy as np

    blocks = []
    for start in range(0, len(entries), CHUNK):
        inputs = [_input(model, entry) for entry in entries[start : start + CHUNK]]
        blocks.append(encode_inputs(model.encode_document, inputs, batch_size, normalizes(model)))
    return np.concatenate(blocks) if blocks else np.empty((0, 0), dtype=np.float32)


def embed_query(model: Encoder, text: str | None, image: Any = None) -> list[float]:
    """Embed a query of text, image or both.

    Raises:
        ValueError: If there is neither, or the image cannot be decoded.
    """
    query = model_input(text, None if image is None else load_image(image))
    if query is None:
        raise ValueError("a query needs a text or an image; got neither")
    row: list[float] = encode_inputs(model.encode_query, [query], 1, normalizes(model))[0].tolist()
    return row


def retriever_over(model: Encoder, entries: Sequence[Entry], batch_size: int = 32) -> Retriever:
    """Embed documents and return a retriever that searches them exactly, in memory.

    Filters can use the fields of the metadata that have values of one type: texts, numbers or booleans.

    Raises:
        ValueError: As [`embed_entries`]; if there are no documents; or if an id repeats.
    """
    if not entries:
        raise ValueError("`documents` must not be empty")
    names = [entry.id for entry in entries]
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise ValueError(f"ids of documents must be unique; {repeated!r} occurs more than once")
    embeddings = embed_entries(model, entries, batch_size)
    fields = _filterable_fields(entries)
    records = [
        DocumentRecord(
            entry.id,
            "text" if entry.image is None else "image",
            entry.text,
            {name: entry.metadata[name] for name in fields if entry.metadata.get(name) is not None},
        )
        for entry in entries
    ]
    return Retriever.from_corpus(model, EncodedCorpus([make_segment(embeddings, records)]), index="flat")


def _filterable_fields(entries: Sequence[Entry]) -> list[str]:
    """Return the fields of the metadata whose values are texts, numbers or booleans, of one type in all documents."""
    types: dict[str, set[type]] = {}
    for entry in entries:
        for name, value in entry.metadata.items():
            if value is not None:
                types.setdefault(name, set()).add(type(value))
    return [name for name, found in types.items() if len(found) == 1 and found <= {str, int, float, bool}]


def _input(model: Encoder, entry: Entry) -> Any:
    """Return the input of a document, whose image is held in the size of the vision tower if the model can do that."""
    preprocess = getattr(model, "preprocess_image", None)
    with place(f"document {entry.id!r}"):
        image = None if entry.image is None else load_image(entry.image)
        found = model_input(entry.text, image if image is None or preprocess is None else preprocess(image))
        if found is None:
            raise ValueError("needs a text or an image; got neither")
    return found
