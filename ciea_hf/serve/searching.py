"""Search of an index with embedded queries: the only module of the service that depends on `Retriever`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ciea_hf.retrieval import Encoder, Hit, Retriever


def open_retriever(model: Encoder, index: str) -> Retriever:
    """Open an index for a model.

    Args:
        model: Model that encodes the queries.
        index: Folder written by `ciea index`, or its URL.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If the index is incomplete, or another model encoded it.
    """
    from ciea_hf.retrieval import Retriever
    from ciea_hf.retrieval.indexes.syncing import open_index

    return Retriever(model, open_index(index, model, device=getattr(model, "device", None)))


def search(
    retriever: Retriever, embeddings: NDArray[np.floating], top_k: int, conditions: Mapping[str, Any] | None
) -> list[list[dict[str, Any]]]:
    """Search with embedded queries.

    Args:
        retriever: Retriever over the index.
        embeddings: (queries, D).
        top_k: Number of hits per query.
        conditions: Filter, or `None`.

    Returns:
        Hits of each query, best first: `id`, `score`, `kind`, `text` and `metadata`.

    Raises:
        TypeError: If the filter has an invalid type.
        ValueError: If the filter is invalid.
    """
    found = retriever.search_embeddings(embeddings, top_k, conditions)
    return [[hit_fields(hit) for hit in hits] for hits in found]


def hit_fields(hit: Hit) -> dict[str, Any]:
    """Return a hit as it is sent: `id`, `score`, `kind`, `text` and `metadata`."""
    return {
        "id": hit.id,
        "score": hit.score,
        "kind": hit.kind,
        "text": hit.text,
        "metadata": hit.metadata,
    }
