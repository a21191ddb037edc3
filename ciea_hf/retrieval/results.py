"""The index seam: what every search backend implements, and the results it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval.filters import Filter
    from ciea_hf.retrieval.records import DocumentRecord

    Matrix = NDArray[np.floating] | torch.Tensor


def _no_records() -> list[list[DocumentRecord]]:
    return []


@dataclass(frozen=True)
class SearchResult:
    """The best documents of each query, best first; equal scores are ordered by document id, descending.

    Attributes:
        ids: Document ids of each query.
        scores: Scores of each query.
        fetch: Function that reads the records of the documents.
    """

    ids: list[list[str]]
    scores: list[list[float]]
    fetch: Callable[[], list[list[DocumentRecord]]] = field(default=_no_records, repr=False, compare=False)

    def records(self) -> list[list[DocumentRecord]]:
        """Read kind, text and metadata of the documents found."""
        return self.fetch()


class Index(Protocol):
    """A search backend.

    Documents are added with their embeddings (documents, D) and records. Every change is visible to the next search;
    `save` makes it permanent.
    """

    @property
    def ids(self) -> Sequence[str]:
        """Ids of all documents that can be found."""

    @property
    def dimension(self) -> int:
        """Width of the embeddings."""

    def __len__(self) -> int:
        """Return the number of documents that can be found."""

    def search(self, queries: Matrix, top_k: int, filter: Filter | None = None) -> SearchResult:  # noqa: A002
        """Find the documents with the highest inner product.

        Args:
            queries: (queries, D).
            top_k: Number of documents per query, at least 1.
            filter: Conditions on the documents; see `ciea_hf.retrieval.filters`.

        Raises:
            ValueError: If an argument is invalid.
        """

    def add(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents; raises `ValueError` if an id is already in the index."""

    def upsert(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents, replacing those with the same ids."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents; raises `ValueError` if an id is not in the index."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index, or how to find it, into a folder."""

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Index:
        """Open an index that `save` has written."""


def as_matrix(queries: Matrix, dimension: int | None = None, name: str = "queries") -> NDArray[np.float32]:
    """Convert queries or embeddings to a float32 matrix.

    Args:
        queries: (rows, D) array or tensor.
        dimension: Required width; any if `None`.
        name: Name of the argument, for errors.

    Raises:
        ValueError: If the shape is another one, or a value is not finite.
    """
    array = queries.detach().cpu().float().numpy() if isinstance(queries, torch.Tensor) else np.asarray(queries)
    matrix = np.ascontiguousarray(array, dtype=np.float32)
    if matrix.ndim != 2 or (dimension and matrix.shape[1] != dimension):
        width = dimension or "D"
        raise ValueError(f"`{name}` must have shape ({name}, {width}) for this index; got {tuple(matrix.shape)}")
    invalid = ~np.isfinite(matrix).all(axis=1)
    if invalid.any():
        raise ValueError(f"row {int(invalid.argmax())} of `{name}` is not finite")
    return matrix


def check_top_k(top_k: int) -> None:
    """Check the number of documents per query.

    Raises:
        ValueError: If it is less than 1.
    """
    if top_k < 1:
        raise ValueError(f"`top_k` must be at least 1; got {top_k}")


def check_new_ids(records: Sequence[DocumentRecord], present: Sequence[str] = ()) -> list[str]:
    """Return the ids of new documents.

    Raises:
        ValueError: If one of them repeats or is present.
    """
    ids = [record.id for record in records]
    if len(set(ids)) < len(ids):
        repeated = next(name for number, name in enumerate(ids) if name in ids[:number])
        raise ValueError(f"`ids` must be unique; {repeated!r} occurs more than once")
    if present:
        raise ValueError(f"document {present[0]!r} is already in the index; use `upsert` to replace it")
    return ids


def exact_scores(query: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute inner products so that equal embeddings get equal scores, whatever surrounds them.

    Matrix products sum the columns at the end of a block in another order than the others. Each row is therefore summed
    alone, in double precision, and rounded once.

    Args:
        query: (D,).
        rows: (documents, D).

    Returns:
        (documents,).
    """
    products: NDArray[np.float64] = np.einsum("nd,d->n", rows.astype(np.float64), query.astype(np.float64))
    return products.astype(np.float32)


def best_of(
    scores: NDArray[np.float32], ids: Sequence[str], top_k: int
) -> tuple[NDArray[np.int64], list[str], list[float]]:
    """Take the best of some documents: by score, equal scores by id, both descending (trec_eval's rule).

    Args:
        scores: (documents,).
        ids: Ids of the documents.
        top_k: Number to take.

    Returns:
        Positions, ids and scores.
    """
    by_id = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    order = np.array(by_id, dtype=np.int64)
    order = order[np.argsort(-scores[order], kind="stable")][:top_k]
    return order, [ids[row] for row in order], scores[order].tolist()
