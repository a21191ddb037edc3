"""Haystack: embedders and a retriever for documents with images.

The image of a document is its `blob`, or the file that `meta["file_path"]` names. Its `content` is the caption.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.integrations import missing_framework
from ciea_hf.integrations.common import Entry, embed_entries, embed_query, resolve_model, retriever_over
from ciea_hf.modeling.images_ciea import IMAGE_SUFFIXES

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ModuleNotFoundError as error:
    raise missing_framework(error, "haystack") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.retrieval import Encoder, Retriever

FILE_PATH = "file_path"


@component
class CIEADocumentEmbedder:
    """Sets the embedding of each document from its text and image.

    Args:
        model: Folder or Hub id of the model, or the model itself, which cannot be serialised.
        batch_size: Number of documents per forward pass.
        file_path_meta_field: Key of the path of a document's image in its `meta`.

    Examples:
        >>> embedder = CIEADocumentEmbedder("runs/ciea")  # doctest: +SKIP
        >>> documents = [Document(content="a cup", meta={"file_path": "cup.png"})]  # doctest: +SKIP
        >>> embedder.run(documents)["documents"][0].embedding  # doctest: +SKIP
    """

    def __init__(self, model: str | Encoder, batch_size: int = 32, file_path_meta_field: str = FILE_PATH) -> None:
        self.model = model
        self.batch_size = batch_size
        self.file_path_meta_field = file_path_meta_field
        self._encoder: Any = None

    def warm_up(self) -> None:
        """Load the model."""
        if self._encoder is None:
            self._encoder = resolve_model(self.model)

    def to_dict(self) -> dict[str, Any]:
        """Serialise the component."""
        return default_to_dict(
            self,
            model=_name(self.model),
            batch_size=self.batch_size,
            file_path_meta_field=self.file_path_meta_field,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CIEADocumentEmbedder:
        """Restore a serialised component."""
        restored: CIEADocumentEmbedder = default_from_dict(cls, data)
        return restored

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Embed documents.

        Args:
            documents: The documents.

        Returns:
            `documents`: copies of the documents with embeddings.

        Raises:
            ValueError: If a document is empty, or its image cannot be decoded.
            FileNotFoundError: If the file of an image does not exist.
        """
        self.warm_up()
        entries = _entries(documents, self.file_path_meta_field)
        rows = embed_entries(self._encoder, entries, self.batch_size).tolist()
        return {"documents": [replace(document, embedding=row) for document, row in zip(documents, rows, strict=True)]}


@component
class CIEATextEmbedder:
    """Embeds a query, for the retriever of a document store.

    Args:
        model: Folder or Hub id of the model, or the model itself, which cannot be serialised.
    """

    def __init__(self, model: str | Encoder) -> None:
        self.model = model
        self._encoder: Any = None

    def warm_up(self) -> None:
        """Load the model."""
        if self._encoder is None:
            self._encoder = resolve_model(self.model)

    def to_dict(self) -> dict[str, Any]:
        """Serialise the component."""
        return default_to_dict(self, model=_name(self.model))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CIEATextEmbedder:
        """Restore a serialised component."""
        restored: CIEATextEmbedder = default_from_dict(cls, data)
        return restored

    @component.output_types(embedding=list[float])
    def run(self, text: str | None = None, image: Any = None) -> dict[str, list[float]]:
        """Embed a query.

        Args:
            text: Text of the query.
            image: Image of the query: a path, a PIL image, encoded bytes or a data URI.

        Returns:
            `embedding`: the vector.

        Raises:
            ValueError: If there is neither text nor image, or the image cannot be decoded.
        """
        self.warm_up()
        return {"embedding": embed_query(self._encoder, text, image)}


@component
class CIEARetriever:
    """Retrieves documents, each found by text and image together.

    Args:
        retriever: Retriever over an index of `ciea index`.
        top_k: Number of documents per query.
        documents: Documents by id; without one, a document is made of the hit.

    Examples:
        >>> retriever = CIEARetriever.from_documents(documents, "runs/ciea")  # doctest: +SKIP
        >>> retriever.run("a red cup", top_k=3)["documents"]  # doctest: +SKIP
    """

    def __init__(self, retriever: Retriever, top_k: int = 10, documents: dict[str, Document] | None = None) -> None:
        self.retriever = retriever
        self.top_k = top_k
        self.documents = documents or {}

    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document],
        model: str | Encoder,
        top_k: int = 10,
        batch_size: int = 32,
        file_path_meta_field: str = FILE_PATH,
    ) -> CIEARetriever:
        """Embed documents and search them exactly, in memory.

        Args:
            documents: The documents.
            model: Model, or the folder or Hub id to load it from.
            top_k: Number of documents per query.
            batch_size: Number of documents per forward pass.
            file_path_meta_field: Key of the path of a document's image in its `meta`.

        Raises:
            ValueError: If there are no documents, one is empty, or its image cannot be decoded.
            FileNotFoundError: If the file of an image does not exist.
        """
        entries = _entries(documents, file_path_meta_field)
        retriever = retriever_over(resolve_model(model), entries, batch_size)
        return cls(retriever, top_k, {document.id: document for document in documents})

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        top_k: int | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002 (the retriever's name of it)
    ) -> dict[str, list[Document]]:
        """Retrieve the documents of a query.

        Args:
            query: Text of the query.
            top_k: Number of documents, in place of the component's.
            filter: Conditions on the documents, such as `{"year": {"$gte": 2020}}`.

        Returns:
            `documents`: the documents with their scores, best first.
        """
        found = []
        for hit in self.retriever.search(query, top_k or self.top_k, filter=filter)[0]:
            meta = {**hit.metadata, "kind": hit.kind}
            known = self.documents.get(hit.id) or Document(id=hit.id, content=hit.text, meta=meta)
            found.append(replace(known, score=hit.score))
        return {"documents": found}


def _entries(documents: Sequence[Document], path_key: str) -> list[Entry]:
    return [Entry(document.id, document.content, _image(document, path_key), document.meta) for document in documents]


def _image(document: Document, path_key: str) -> Any:
    """Return the bytes or the path of a document's image; `None` if its blob or file is something else."""
    if document.blob is not None and (document.blob.mime_type or "image/").startswith("image/"):
        return document.blob.data
    path = document.meta.get(path_key)
    return Path(path) if path is not None and str(path).lower().endswith(IMAGE_SUFFIXES) else None


def _name(model: str | Encoder) -> str:
    if not isinstance(model, str):
        raise ValueError("`model` must be a folder or Hub id for the component to be serialised; got a model")  # noqa: TRY004
    return model
