"""LangChain: embeddings and a retriever for documents with images.

The image of a document is `metadata["image"]`: a path, a PIL image, encoded bytes or a data URI. Its `page_content` is
the caption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from ciea_hf.integrations import missing_framework
from ciea_hf.integrations.common import Entry, embed_entries, embed_query, resolve_model, retriever_over

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
except ModuleNotFoundError as error:
    raise missing_framework(error, "langchain") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.callbacks import CallbackManagerForRetrieverRun

    from ciea_hf.retrieval import Encoder, Hit

IMAGE_KEY = "image"


class CIEAEmbeddings(Embeddings):
    """Embeds queries, texts, and documents with images.

    LangChain's vector stores pass texts alone to `embed_documents`. For documents with images, pass the vectors of
    [`embed`] to a store, or use [`CIEARetriever`].

    Args:
        model: Model, or the folder or Hub id to load it from.
        batch_size: Number of documents per forward pass.
        image_key: Key of a document's image in its metadata.

    Examples:
        >>> embeddings = CIEAEmbeddings("runs/ciea")  # doctest: +SKIP
        >>> vectors = embeddings.embed([Document("a cup", metadata={"image": "cup.png"})])  # doctest: +SKIP
    """

    def __init__(self, model: Encoder | str, batch_size: int = 32, image_key: str = IMAGE_KEY) -> None:
        self.model = resolve_model(model)
        self.batch_size = batch_size
        self.image_key = image_key

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts."""
        return self.embed([Document(text) for text in texts])

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        return embed_query(self.model, text)

    def embed(self, documents: Sequence[Document]) -> list[list[float]]:
        """Embed documents, each with its image.

        Args:
            documents: The documents.

        Returns:
            One vector per document.

        Raises:
            ValueError: If a document is empty, or its image cannot be decoded.
            FileNotFoundError: If the file of an image does not exist.
        """
        entries = _entries(documents, self.image_key)
        vectors: list[list[float]] = embed_entries(self.model, entries, self.batch_size).tolist()
        return vectors


class CIEARetriever(BaseRetriever):
    """Retrieves documents, each found by text and image together.

    Attributes:
        retriever: Retriever over an index of `ciea index`, or over the documents of [`from_documents`].
        top_k: Number of documents per query.
        filter: Conditions on the metadata, such as `{"year": {"$gte": 2020}}`.
        documents: Documents by id; without one, a document is made of the hit.

    Examples:
        >>> documents = [Document("a cup", metadata={"image": "cup.png"})]  # doctest: +SKIP
        >>> retriever = CIEARetriever.from_documents(documents, "runs/ciea", top_k=3)  # doctest: +SKIP
        >>> retriever.invoke("a red cup")  # doctest: +SKIP
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    retriever: Any
    top_k: int = 10
    filter: dict[str, Any] | None = None
    documents: dict[str, Document] = Field(default_factory=dict)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        model: Encoder | str,
        top_k: int = 10,
        batch_size: int = 32,
        image_key: str = IMAGE_KEY,
        **options: Any,
    ) -> CIEARetriever:
        """Embed documents and search them exactly, in memory.

        Args:
            documents: The documents.
            model: Model, or the folder or Hub id to load it from.
            top_k: Number of documents per query.
            batch_size: Number of documents per forward pass.
            image_key: Key of a document's image in its metadata.
            **options: Further attributes of the retriever, such as `filter`.

        Raises:
            ValueError: If there are no documents, one is empty, or its image cannot be decoded.
            FileNotFoundError: If the file of an image does not exist.
        """
        found = list(documents)
        entries = _entries(found, image_key)
        retriever = retriever_over(resolve_model(model), entries, batch_size)
        by_id = {entry.id: document for entry, document in zip(entries, found, strict=True)}
        return cls(retriever=retriever, top_k=top_k, documents=by_id, **options)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        return [self._document(hit) for hit in self.retriever.search(query, self.top_k, filter=self.filter)[0]]

    def _document(self, hit: Hit) -> Document:
        known = self.documents.get(hit.id)
        if known is None:
            known = Document(hit.text or "", id=hit.id, metadata={**hit.metadata, "kind": hit.kind})
        return known.model_copy(update={"id": hit.id, "metadata": {**known.metadata, "score": hit.score}})


def _entries(documents: Sequence[Document], image_key: str) -> list[Entry]:
    return [
        Entry(
            document.id or str(position),
            document.page_content,
            document.metadata.get(image_key),
            {name: value for name, value in document.metadata.items() if name != image_key},
        )
        for position, document in enumerate(documents)
    ]
