"""Search a corpus with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ciea_hf.retrieval.bm25 import KeywordIndex, fuse
from ciea_hf.retrieval.building import encode_corpus
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries, normalizes
from ciea_hf.retrieval.precision import truncate

if TYPE_CHECKING:
    import os

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.corpus import EncodedCorpus
    from ciea_hf.retrieval.filters import Filter
    from ciea_hf.retrieval.results import Index, SearchResult

_FUSED = 100  # documents of each ranking that a hybrid search fuses


@dataclass(frozen=True)
class Hit:
    """A document found by a search.

    Attributes:
        id: Document id.
        score: Similarity of query and document: cosine, or dot product if the model scores so; the fused score of a
            hybrid search.
        rank: Rank, from 1.
        kind: `"image"` or `"text"`.
        text: Text document, or the image's caption; `None` for an image without one.
        metadata: Further fields of the document.
    """

    id: str
    score: float
    rank: int
    kind: str
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


class Retriever:
    """Searches an index with a model and returns the documents found.

    Args:
        model: Model that encodes the queries.
        index: Index of the documents' embeddings.
        keywords: BM25 index of their texts, for hybrid searches.

    Examples:
        >>> retriever = Retriever.from_dataset(model, dataset)  # doctest: +SKIP
        >>> retriever.search("a cat beside a train", top_k=3)[0][0].id  # doctest: +SKIP
        'scene-0412'
        >>> retriever.search({"text": "in winter", "image": photo}, filter={"year": {"$gte": 2020}})  # doctest: +SKIP
    """

    def __init__(self, model: Encoder, index: Index, keywords: KeywordIndex | None = None) -> None:
        self.model = model
        self.index = index
        self.keywords = keywords

    @classmethod
    def from_corpus(
        cls,
        model: Encoder,
        corpus: EncodedCorpus,
        device: str | torch.device | None = None,
        index: str = "auto",
        hybrid: bool = False,
    ) -> Retriever:
        """Create a retriever over an encoded corpus; see [`EncodedCorpus.index`].

        Args:
            model: Model that encodes the queries.
            corpus: Embeddings and records.
            device: Device that computes scores.
            index: Kind of index.
            hybrid: Whether to index the texts with BM25, too.
        """
        return cls(model, corpus.index(index, device), KeywordIndex(corpus) if hybrid else None)

    @classmethod
    def from_dataset(
        cls,
        model: Encoder,
        dataset: RetrievalDataset,
        folder: str | os.PathLike[str] | None = None,
        options: EncodingOptions | None = None,
        index: str = "auto",
    ) -> Retriever:
        """Encode a data set's corpus and search it; embeddings are kept in `folder` if it is given."""
        return cls.from_corpus(model, encode_corpus(model, dataset, folder, options=options), index=index)

    def search(
        self,
        queries: Any,
        top_k: int = 10,
        batch_size: int = 64,
        filter: Filter | None = None,  # noqa: A002
    ) -> list[list[Hit]]:
        """Find the best documents of each query.

        Args:
            queries: One query or a list of them: a text, an image (a PIL image, or a path of type `Path`), or a dict
                of `"text"` and `"image"`.
            top_k: Number of documents per query, at least 1.
            batch_size: Number of queries per forward pass.
            filter: Conditions on the documents, such as `{"modality": "image", "year": {"$gte": 2020}}`.

        Returns:
            Hits of each query, best first; equal scores are ordered by document id, descending. With `keywords`, the
            dense ranking is fused with BM25's ranking of the text by reciprocal ranks.

        Raises:
            ValueError: If `top_k` is below 1 or the filter is invalid.
        """
        given = list(queries) if _is_batch(queries) else [queries]
        if not given:
            return []
        embeddings = encode_queries(self.model, given, batch_size)
        if self.keywords is None:
            return self.search_embeddings(embeddings, top_k, filter)
        depth = max(_FUSED, 2 * top_k)
        dense = self.index.search(self._fitted(embeddings), depth, filter)
        sparse = self.keywords.search([_text_of(query) for query in given], depth, filter)
        return hits_of(fuse([dense, sparse], top_k))

    def search_embeddings(
        self,
        embeddings: NDArray[np.floating],
        top_k: int = 10,
        filter: Filter | None = None,  # noqa: A002
    ) -> list[list[Hit]]:
        """Find the best documents of queries that are already embedded.

        Args:
            embeddings: (queries, D); truncated if the index stores less dimensions.
            top_k: Number of documents per query, at least 1.
            filter: Conditions on the documents.

        Returns:
            Hits of each query, best first.

        Raises:
            ValueError: If `top_k` is below 1, the width is less than the index's, or the filter is invalid.
        """
        return hits_of(self.index.search(self._fitted(embeddings), top_k, filter))

    def _fitted(self, embeddings: Any) -> NDArray[np.float32]:
        from ciea_hf.retrieval.results import as_matrix

        matrix = as_matrix(embeddings)
        width = self.index.dimension
        if not width or matrix.shape[1] <= width:
            return matrix
        return truncate(matrix, width, normalizes(self.model))


def hits_of(result: SearchResult) -> list[list[Hit]]:
    """Join ids and scores with the records of the documents."""
    found = []
    for scores, records in zip(result.scores, result.records(), strict=True):
        pairs = enumerate(zip(scores, records, strict=True), start=1)
        found.append(
            [Hit(record.id, score, rank, record.kind, record.text, record.metadata) for rank, (score, record) in pairs]
        )
    return found


def _is_batch(queries: Any) -> bool:
    return isinstance(queries, Sequence) and not isinstance(queries, str | bytes | Mapping)


def _text_of(query: Any) -> str:
    text = query.get("text") if isinstance(query, Mapping) else query
    return text if isinstance(text, str) else ""
