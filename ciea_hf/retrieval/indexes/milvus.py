"""Documents in a Milvus collection: a cluster by URI, or a local file of Milvus-lite."""

from __future__ import annotations

import json
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
_SYMBOLS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_WINDOW = 16_384  # most rows of one query
_LONGEST = 65_535  # bytes of a text


class MilvusIndex(EngineIndex):
    """Documents in a Milvus collection.

    The comparisons of a filter are stored with each document, by kind of value: Milvus has no types in its dynamic
    fields, and compares a text with a number without an error.

    Args:
        uri: URI of a cluster, or path of a file ending in `.db` for Milvus-lite.
        collection: Name of the collection.

    Raises:
        ImportError: If pymilvus is not installed.
    """

    kind = "milvus"

    def __init__(self, uri: str, collection: str = "documents") -> None:
        super().__init__(uri, collection)
        self._library = import_optional("pymilvus", extra="milvus")
        self._client = self._library.MilvusClient(uri)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def ids(self) -> list[str]:
        """Ids of all documents."""
        return [row["id"] for row in self._rows(["id"])]

    @property
    def dimension(self) -> int:
        """Width of the embeddings; 0 for an index without documents."""
        if not self._client.has_collection(self.collection):
            return 0
        fields = self._client.describe_collection(self.collection)["fields"]
        return next(int(field["params"]["dim"]) for field in fields if field["name"] == "vector")

    def _rows(self, fields: list[str], expression: str = "") -> list[dict[str, Any]]:
        if not self.dimension:
            return []
        found: list[dict[str, Any]] = self._client.query(
            self.collection, filter=expression, output_fields=fields, limit=_WINDOW, consistency_level="Strong"
        )
        if len(found) < _WINDOW:
            return found
        found = []
        iterator = self._client.query_iterator(
            self.collection, batch_size=BATCH, filter=expression, output_fields=fields, consistency_level="Strong"
        )
        while batch := iterator.next():
            found += batch
        iterator.close()
        return found

    def _count(self, condition: Condition | None) -> int:
        if not self.dimension:
            return 0
        found = self._client.query(
            self.collection,
            filter="" if condition is None else expression_of(condition),
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        return int(found[0]["count(*)"])

    def _fields(self) -> set[str]:
        return {name for row in self._rows(["metadata"]) for name in json.loads(row["metadata"])}

    def _nearest(
        self, query: NDArray[np.float32], top_k: int, condition: Condition | None, is_exact: bool
    ) -> list[Row]:
        if is_exact and condition is not None:
            rows = self._rows(["record", "vector"], expression_of(condition))
        else:
            (hits,) = self._client.search(
                self.collection,
                [query.tolist()],
                limit=top_k + _FURTHER,
                filter="" if condition is None else expression_of(condition),
                output_fields=["record", "vector"],
                consistency_level="Strong",
            )
            rows = [hit["entity"] for hit in hits]
        return [(_record(row), np.asarray(row["vector"], dtype=np.float32)) for row in rows]

    def _present(self, ids: list[str]) -> set[str]:
        if not ids or not self.dimension:
            return set()
        keys = [stable_uuid(name) for name in ids]
        found = self._client.get(self.collection, ids=keys, output_fields=["id"])
        return {row["id"] for row in found}

    def _write(self, rows: NDArray[np.float32], records: Sequence[DocumentRecord]) -> None:
        if not records:
            return
        if not self.dimension:
            self._create(rows.shape[1])
        self._delete(
            sorted(self._present([record.id for record in records]))
        )  # an upsert would keep old dynamic fields
        for start in range(0, len(records), BATCH):
            batch = zip(rows[start : start + BATCH], records[start : start + BATCH], strict=True)
            self._client.insert(self.collection, [_entity(row, record) for row, record in batch])

    def _create(self, width: int) -> None:
        kinds = self._library.DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("key", kinds.VARCHAR, is_primary=True, max_length=36)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=width)
        for name in ("id", "record", "metadata"):
            schema.add_field(name, kinds.VARCHAR, max_length=_LONGEST)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        self._client.create_collection(self.collection, schema=schema, index_params=index)

    def _delete(self, ids: list[str]) -> None:
        if ids:
            self._client.delete(self.collection, ids=[stable_uuid(name) for name in ids])


def _entity(row: NDArray[np.float32], record: DocumentRecord) -> dict[str, Any]:
    metadata = json.dumps(record.metadata, ensure_ascii=False)
    content = json.dumps([record.kind, record.text], ensure_ascii=False)
    for name, text in (("id", record.id), ("text", content), ("metadata", metadata)):
        if len(text.encode("utf-8")) > _LONGEST:
            raise ValueError(f"document {record.id!r}: Milvus stores at most {_LONGEST} bytes of {name}")
    fields = {"kind": record.kind, "id": record.id, "text": record.text} | record.metadata
    comparable = {
        _key(name, value): value for name, value in fields.items() if isinstance(value, str | bool | int | float)
    }
    return {
        "key": stable_uuid(record.id),
        "vector": row.tolist(),
        "id": record.id,
        "record": json.dumps([record.id, record.kind, record.text, record.metadata], ensure_ascii=False),
        "metadata": metadata,
        **comparable,
        **{f"has_{name.encode().hex()}": True for name, value in fields.items() if value is not None},
    }


def expression_of(condition: Condition) -> str:
    """Translate a condition to an expression of Milvus."""
    if not isinstance(condition, Comparison):
        parts = [expression_of(part) for part in condition.parts]
        if condition.operator == "$not":
            return f"(not {parts[0]})"
        return "(" + (" and " if condition.operator == "$and" else " or ").join(parts) + ")"
    field = OWN_FIELDS.get(condition.field, condition.field)
    has = f"has_{field.encode().hex()}"
    if condition.operator == "$exists":
        return f"(exists {has})"
    never = '(key == "")'
    symbol = _SYMBOLS.get(condition.operator, "==")
    parts = [
        f"(exists {_key(field, value)} and {_key(field, value)} {symbol} {json.dumps(value, ensure_ascii=False)})"
        for value in condition.values
    ]
    return f"({' or '.join(parts)})" if parts else never


def _key(field: str, value: Any) -> str:
    """Return the name of the dynamic field that holds the values of one kind of a field."""
    return f"{value_kind(value)}_{field.encode().hex()}"


def _record(row: dict[str, Any]) -> DocumentRecord:
    name, kind, text, metadata = json.loads(row["record"])
    return DocumentRecord(name, kind, text, metadata)
