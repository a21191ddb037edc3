"""Base of the indexes that another program stores, at a URI: LanceDB, Qdrant, Milvus."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from ciea_hf.retrieval.checksums import read_checked, write_checked
from ciea_hf.retrieval.filters import OWN_FIELDS, check_fields, parse_filter
from ciea_hf.retrieval.location import open_location
from ciea_hf.retrieval.manifests import DESCRIPTION
from ciea_hf.retrieval.results import SearchResult, as_matrix, best_of, check_new_ids, check_top_k, exact_scores

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval.filters import Condition, Filter
    from ciea_hf.retrieval.records import DocumentRecord
    from ciea_hf.retrieval.results import Matrix

FEW = 20_000
"""Number of documents that a filter may leave for an exact search among them."""
BATCH = 1000  # documents per request
_LIBRARIES = ("lancedb", "lance", "qdrant_client", "pymilvus", "grpc", "httpx")

if TYPE_CHECKING:
    Row: TypeAlias = tuple[DocumentRecord, NDArray[np.float32]]


@contextmanager
def engine_errors(kind: str, uri: str) -> Iterator[None]:
    """Turn the errors of an engine's library into one that names the engine and its URI.

    Raises:
        OSError: If the engine cannot be reached or refuses a request.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _LIBRARIES and not isinstance(error, RuntimeError):
            raise  # a fault of this package
        raise OSError(f"{kind} at {uri}: {' '.join(str(error).split())[:300]}") from error


class EngineIndex(ABC):
    """Base class of the indexes that another program stores.

    A program returns candidates with their embeddings, whose scores are computed again as in all indexes.

    Args:
        uri: Where the documents are stored.
        collection: Name of the collection or table, which is created with the first documents.
    """

    kind: ClassVar[str]

    def __init__(self, uri: str, collection: str = "documents") -> None:
        self.uri = uri
        self.collection = collection

    def __len__(self) -> int:
        return self._count(None)

    def search(self, queries: Matrix, top_k: int, filter: Filter | None = None) -> SearchResult:  # noqa: A002
        """Find the documents with the highest inner product; see `Index.search`."""
        check_top_k(top_k)
        matrix = as_matrix(queries, self.dimension)
        condition = parse_filter(filter)
        if not self.dimension:
            return SearchResult([[] for _ in matrix], [[] for _ in matrix], lambda: [[] for _ in matrix])
        with engine_errors(self.kind, self.uri):
            if condition is not None:
                check_fields(condition, self._fields())
            is_exact = condition is not None and self._count(condition) <= FEW
            found = [self._ranked(query, self._nearest(query, top_k, condition, is_exact), top_k) for query in matrix]
        records = [[row[0] for row in rows] for rows in found]
        return SearchResult(
            [[record.id for record in row] for row in records],
            [[score for _, score in rows] for rows in found],
            lambda: records,
        )

    def add(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents; raises `ValueError` if an id is already in the index."""
        rows = self._checked(embeddings, records)
        check_new_ids(records, sorted(self._present([record.id for record in records])))
        self._write(rows, records)

    def upsert(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents, replacing those with the same ids."""
        rows = self._checked(embeddings, records)
        check_new_ids(records)
        self._write(rows, records)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents; raises `ValueError` if an id is not in the index."""
        present = self._present(list(ids))
        unknown = next((name for name in ids if name not in present), None)
        if unknown is not None:
            raise ValueError(f"document {unknown!r} is not in the index")
        self._delete(list(ids))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write where the index is stored; the documents are already there."""
        content = {"kind": self.kind, "uri": self.uri, "collection": self.collection}
        write_checked(open_location(folder) / DESCRIPTION, content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> EngineIndex:
        """Open the index that `save` has described.

        Raises:
            FileNotFoundError: If the folder describes none.
            ValueError: If it describes an index of another kind.
        """
        path = open_location(folder) / DESCRIPTION
        if not path.is_file():
            raise FileNotFoundError(f"{folder} does not describe an index: {DESCRIPTION} not found")
        content = read_checked(path)
        if content.get("kind") != cls.kind:
            raise ValueError(f"{path} does not describe an index of kind {cls.kind!r}")
        return cls(content["uri"], content["collection"])

    @property
    @abstractmethod
    def ids(self) -> list[str]:
        """Ids of all documents."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Width of the embeddings; 0 for an index without documents."""

    @abstractmethod
    def _count(self, condition: Condition | None) -> int:
        """Count the documents that match a condition."""

    @abstractmethod
    def _fields(self) -> set[str]:
        """Return the names of the metadata."""

    @abstractmethod
    def _nearest(
        self, query: NDArray[np.float32], top_k: int, condition: Condition | None, is_exact: bool
    ) -> list[Row]:
        """Return candidates with their embeddings."""

    @abstractmethod
    def _present(self, ids: list[str]) -> set[str]:
        """Return which ids are in the index."""

    @abstractmethod
    def _write(self, rows: NDArray[np.float32], records: Sequence[DocumentRecord]) -> None:
        """Add or replace documents."""

    @abstractmethod
    def _delete(self, ids: list[str]) -> None:
        """Delete documents."""

    def _checked(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> NDArray[np.float32]:
        rows = as_matrix(embeddings, name="embeddings")
        if len(rows) != len(records):
            raise ValueError(f"`embeddings` and records must be equally many; got {len(rows)} and {len(records)}")
        if self.dimension and rows.shape[1] != self.dimension:
            raise ValueError(f"`embeddings` must have width {self.dimension} for this index; got {rows.shape[1]}")
        for record in records:
            reserved = sorted(record.metadata.keys() & {*OWN_FIELDS, "vector"})
            if reserved:
                raise ValueError(f"document {record.id!r}: the metadata {reserved[0]!r} has the name of a field")
        return rows

    def _ranked(self, query: NDArray[np.float32], found: list[Row], top_k: int) -> list[tuple[DocumentRecord, float]]:
        if not found:
            return []
        scores = exact_scores(query, np.stack([row for _, row in found]))
        order, _, values = best_of(scores, [record.id for record, _ in found], top_k)
        return [(found[place][0], score) for place, score in zip(order.tolist(), values, strict=True)]


def stable_uuid(document: str) -> str:
    """Return the UUID of a document id, for programs whose ids are UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, document))
