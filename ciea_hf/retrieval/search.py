"""Search a corpus with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ciea_hf.retrieval.corpus import EncodedCorpus, encode_corpus
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.documents import DocumentRecord
    from ciea_hf.retrieval.index import Index


@dataclass(frozen=True)
class Hit:
    """A document found by a search.

    Attributes:
        id: Document id.
        score: Similarity of query and document: cosine, or dot product if the model scores so.
        rank: Rank, from 1.
        kind: `"image"` or `"text"`.
        text: Text document, or the image's caption; `None` for an image without one.
    """

    id: str
    score: float
    rank: int
    kind: str
    text: str | None


class Retriever:
    """Searches an index with a model and returns the documents found.

    Args:
        model: Model that encodes the queries.
        index: Index of the documents' embeddings.
        records: Id, kind and text of the indexed documents.

    Examples:
        >>> retriever = Retriever.from_dataset(model, dataset)  # doctest: +SKIP
        >>> retriever.search("a cat beside a train", top_k=3)[0][0].id  # doctest: +SKIP
        'scene-0412'
    """

    def __init__(self, model: Encoder, index: Index, records: Sequence[DocumentRecord]) -> None:
        self.model = model
        self.index = index
        self._records = {record.id: record for record in records}

    @classmethod
    def from_corpus(cls, model: Encoder, corpus: EncodedCorpus, device: str | torch.device | None = None) -> Retriever:
        """Create a retriever that searches an encoded corpus exactly; `device` computes the scores."""
        return cls(model, corpus.index(device), corpus.records)

    @classmethod
    def from_dataset(
        cls,
        model: Encoder,
        dataset: RetrievalDataset,
        folder: str | os.PathLike[str] | None = None,
        options: EncodingOptions | None = None,
    ) -> Retriever:
        """Encode a data set's corpus and search it exactly; embeddings are kept in `folder` if it is given."""
        return cls.from_corpus(model, encode_corpus(model, dataset, folder, options=options))

    def search(self, queries: str | Sequence[str], top_k: int = 10, batch_size: int = 64) -> list[list[Hit]]:
        """Find the best documents of each query.

        Args:
            queries: One query or several.
            top_k: Number of documents per query, at least 1.
            batch_size: Number of queries per forward pass.

        Returns:
            Hits of each query, best first; equal scores are ordered by document id, descending.

        Raises:
            ValueError: If `top_k` is below 1.
        """
        texts = [queries] if isinstance(queries, str) else list(queries)
        return self.search_embeddings(encode_queries(self.model, texts, batch_size), top_k) if texts else []

    def search_embeddings(self, embeddings: NDArray[np.floating], top_k: int = 10) -> list[list[Hit]]:
        """Find the best documents of queries that are already embedded.

        Args:
            embeddings: (queries, D).
            top_k: Number of documents per query, at least 1.

        Returns:
            Hits of each query, best first.

        Raises:
            ValueError: If `top_k` is below 1, or the width differs from the index's.
        """
        scores, positions = self.index.search(embeddings, top_k)
        return [self._hits(*row) for row in zip(scores, positions, strict=True)]

    def _hits(self, scores: np.ndarray, positions: np.ndarray) -> list[Hit]:
        hits = []
        for rank, (score, position) in enumerate(zip(scores.tolist(), positions.tolist(), strict=True), start=1):
            record = self._records[self.index.ids[position]]
            hits.append(Hit(record.id, score, rank, record.kind, record.text))
        return hits
