"""Documents in a Qdrant collection: a cluster by URL, or in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.filters import OWN_FIELDS, Comparison, value_kind
from ciea_hf.retrieval.indexes.engine import BATCH, EngineIndex, stable_uuid
from ciea_hf.retrieval.records import DocumentRecord
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval.filters import Condition
    from ciea_hf.retrieval.indexes.engine import Row

_FURTHER = 40  # candidates beyond the hits, whose scores are computed again
_BOUNDS = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


class QdrantIndex(EngineIndex):
    """Documents in a Qdrant collection.

    Args:
        uri: URL of a server, `:memory:`, or a folder for a local collection of some thousand documents.
        collection: Name of the collection.

    Raises:
        ImportError: If qdrant-client is not installed.
    """

    kind = "qdrant"

    def __init__(self, uri: str = ":memory:", collection: str = "documents") -> None:
        super().__init__(uri, collection)
        library = import_optional("qdrant_client", extra="qdrant")
        self._models = library.models
        if uri == ":memory:":
            self._client = library.QdrantClient(":memory:")
        elif "://" in uri:
            self._client = library.QdrantClient(url=uri)
        else:
            self._client = library.QdrantClient(path=uri)

    def close(self) -> None:
        """Close the connection, or release the lock of a folder."""
        self._client.close()

    @property
    def ids(self) -> list[str]:
        """Ids of all documents."""
        return [point.payload["id"] for point in self._points(["id"])]

    @property
    def dimension(self) -> int:
        """Width of the embeddings; 0 for an index without documents."""
        if not self._client.collection_exists(self.collection):
            return 0
        return int(self._client.get_collection(self.collection).config.params.vectors.size)

    def _points(self, payload: list[str]) -> list[Any]:
        """Read some of the payload of all documents."""
        found: list[Any] = []
        offset = None
        while self.dimension:
            points, offset = self._client.scroll(
                self.collection, limit=BATCH, offset=offset, with_payload=payload, with_vectors=False
            )
            found += points
            if offset is None:
                break
        return found

    def _count(self, condition: Condition | None) -> int:
        if not self.dimension:
            return 0
        chosen = None if condition is None else self._filter(condition)
        return int(self._client.count(self.collection, count_filter=chosen, exact=True).count)

    def _fields(self) -> set[str]:
        points = self._points(["metadata"])
        return {name for point in points for name in point.payload.get("metadata") or {}}

    def _nearest(
        self, query: NDArray[np.float32], top_k: int, condition: Condition | None, is_exact: bool
    ) -> list[Row]:
        found = self._client.query_points(
            self.collection,
            query=query.tolist(),
            query_filter=None if condition is None else self._filter(condition),
            search_params=self._models.SearchParams(exact=is_exact),
            limit=top_k + _FURTHER,
            with_payload=True,
            with_vectors=True,
        )
        return [(_record(point.payload), np.asarray(point.vector, dtype=np.float32)) for point in found.points]

    def _present(self, ids: list[str]) -> set[str]:
        if not ids or not self.dimension:
            return set()
        found = self._client.retrieve(self.collection, [stable_uuid(name) for name in ids], with_payload=["id"])
        return {point.payload["id"] for point in found}

    def _write(self, rows: NDArray[np.float32], records: Sequence[DocumentRecord]) -> None:
        if not records:
            return
        models = self._models
        if not self.dimension:
            params = models.VectorParams(size=rows.shape[1], distance=models.Distance.DOT)
            self._client.create_collection(self.collection, vectors_config=params)
        for start in range(0, len(records), BATCH):
            points = [
                models.PointStruct(
                    id=stable_uuid(record.id),
                    vector=row.tolist(),
                    payload={
                        "id": record.id, "kind": record.kind, "text": record.text, "metadata": record.metadata,
                    },
                )
                for row, record in zip(rows[start : start + BATCH], records[start : start + BATCH], strict=True)
            ]  # fmt: skip
            self._client.upsert(self.collection, points, wait=True)

    def _delete(self, ids: list[str]) -> None:
        if ids:
            selector = self._models.PointIdsList(points=[stable_uuid(name) for name in ids])
            self._client.delete(self.collection, selector, wait=True)

    def _filter(self, condition: Condition) -> Any:
        models = self._models
        if isinstance(condition, Comparison):
            return self._comparison(condition)
        parts = [self._filter(part) for part in condition.parts]
        if condition.operator == "$not":
            return models.Filter(must_not=parts)
        return models.Filter(must=parts) if condition.operator == "$and" else models.Filter(should=parts)

    def _comparison(self, condition: Comparison) -> Any:
        """Translate a comparison to a filter."""
        models = self._models
        key = OWN_FIELDS.get(condition.field, f'metadata."{condition.field}"')
        if condition.operator == "$exists":
            return models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
        if condition.operator == "$in":
            parts = [self._equal(key, value) for value in condition.values]
            return models.Filter(should=parts) if parts else models.Filter(must=[models.HasIdCondition(has_id=[])])
        (value,) = condition.values
        if isinstance(value, str):
            raise TypeError(f"`filter`: Qdrant compares only numbers by {condition.operator}; got {value!r}")
        bounds = {_BOUNDS[condition.operator]: value}
        return models.Filter(must=[models.FieldCondition(key=key, range=models.Range(**bounds))])

    def _equal(self, key: str, value: Any) -> Any:
        models = self._models
        if value_kind(value) == "number":
            return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _record(payload: dict[str, Any]) -> DocumentRecord:
    return DocumentRecord(payload["id"], payload["kind"], payload["text"], payload.get("metadata") or {})
