"""Search a corpus with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ciea_hf.retrieval.corpus import EncodedCorpus, encode_corpus
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries
from ciea_hf.retrieval.index import FlatIndex, Index

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    import torch

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.documents import DocumentRecord


@dataclass(frozen=True)
class Hit:
    """One document that a search found.

    Attributes:
        id: The document's id.
        score: Similarity of query and document: the cosine, or the dot product for a model that scores so.
        rank: Place in the ranking, from 1.
        kind: ``"image"`` or ``"text"``.
        text: The text document, or the picture's caption; None if it has none.
    """

    id: str
    score: float
    rank: int
    kind: str
    text: str | None


class Retriever:
    """A model, the records of a corpus, and the index that holds their embeddings.

    Args:
        model: Encodes the queries.
        index: Holds the documents' embeddings.
        records: Id, kind and text of the indexed documents.

    Example:
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
        """Search an encoded corpus exactly; ``device`` is where scores are computed."""
        return cls(model, FlatIndex(corpus.shards, corpus.ids, device=device), corpus.records)

    @classmethod
    def from_dataset(
        cls,
        model: Encoder,
        dataset: RetrievalDataset,
        folder: str | os.PathLike[str] | None = None,
        options: EncodingOptions | None = None,
    ) -> Retriever:
        """Encode a data set's corpus and search it exactly; embeddings are kept in ``folder`` if it is given."""
        return cls.from_corpus(model, encode_corpus(model, dataset, folder, options=options))

    def search(self, queries: str | Sequence[str], top_k: int = 10, batch_size: int = 64) -> list[list[Hit]]:
        """Find the best documents of each query.

        Args:
            queries: One query or several.
            top_k: Documents wanted for each query, at least 1.
            batch_size: Queries of one forward pass.

        Returns:
            For each query its hits, best first; equal scores by document id descending.

        Raises:
            ValueError: If ``top_k`` is below 1.
        """
        texts = [queries] if isinstance(queries, str) else list(queries)
        if not texts:
            return []
        scores, positions = self.index.search(encode_queries(self.model, texts, batch_size), top_k)
        return [self._hits(*row) for row in zip(scores, positions, strict=True)]

    def _hits(self, scores: np.ndarray, positions: np.ndarray) -> list[Hit]:
        hits = []
        for rank, (score, position) in enumerate(zip(scores.tolist(), positions.tolist(), strict=True), start=1):
            record = self._records[self.index.ids[position]]
            hits.append(Hit(record.id, score, rank, record.kind, record.text))
        return hits
