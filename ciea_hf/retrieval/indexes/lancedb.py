"""Documents in a LanceDB table: a folder or an object store, with many readers and writers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from ciea_hf.retrieval.filters import OWN_FIELDS, Comparison, value_kind
from ciea_hf.retrieval.indexes.engine import EngineIndex
from ciea_hf.retrieval.records import DocumentRecord
from ciea_hf.retrieval.segment import METADATA, record_table
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval.filters import Condition
    from ciea_hf.retrieval.indexes.engine import Row

_METADATA = "metadata_"  # prefix of the columns of metadata; LanceDB allows no dots in names
_FURTHER = 40  # candidates beyond the hits, whose scores are computed again
_SYMBOLS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_TYPES = {"bool": ("bool",), "number": ("int", "double", "float"), "text": ("string", "large_string")}


class LanceIndex(EngineIndex):
    """Documents in a LanceDB table.

    Without a call of [`optimize`] every search is exact.

    Args:
        uri: Folder, or `s3://` and similar.
        collection: Name of the table.

    Raises:
        ImportError: If lancedb is not installed.
    """

    kind = "lancedb"

    def __init__(self, uri: str, collection: str = "documents") -> None:
        super().__init__(uri, collection)
        self._base = import_optional("lancedb", extra="lancedb").connect(uri)
        self._table: Any = None

    @property
    def ids(self) -> list[str]:
        """Ids of all documents."""
        table = self._opened()
        if table is None:
            return []
        found: list[str] = table.search().select(["id"]).limit(table.count_rows()).to_arrow()["id"].to_pylist()
        return found

    @property
    def dimension(self) -> int:
        """Width of the embeddings; 0 for an index without documents."""
        table = self._opened()
        return 0 if table is None else int(table.schema.field("vector").type.list_size)

    def optimize(self, cells: int | None = None) -> None:
        """Build an IVF_HNSW_SQ index, compact the table and drop old versions; call it from one process only.

        Args:
            cells: Number of IVF cells; chosen by LanceDB if `None`.
        """
        table = self._opened()
        if table is not None:
            table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=cells, replace=True)
            table.optimize(cleanup_older_than=timedelta(0))

    def _opened(self) -> Any:
        """Return the table at its latest version; `None` before the first documents."""
        if self._table is None:
            try:
                self._table = self._base.open_table(self.collection)
            except (ValueError, FileNotFoundError):
                return None
        self._table.checkout_latest()
        return self._table

    def _count(self, condition: Condition | None) -> int:
        table = self._opened()
        if table is None:
            return 0
        return int(table.count_rows(None if condition is None else sql(condition, self._types())))

    def _types(self) -> dict[str, str]:
        table = self._opened()
        return {} if table is None else {field.name: str(field.type) for field in table.schema}

    def _fields(self) -> set[str]:
        return {_field(name) for name in self._types() if name.startswith(_METADATA)}

    def _nearest(
        self, query: NDArray[np.float32], top_k: int, condition: Condition | None, is_exact: bool
    ) -> list[Row]:
        table = self._opened()
        search = table.search(query).distance_type("dot").limit(top_k + _FURTHER)
        if is_exact:
            search = search.bypass_vector_index()
        if condition is not None:
            search = search.where(sql(condition, self._types()), prefilter=True)
        return [(_record(row), np.asarray(row["vector"], dtype=np.float32)) for row in search.to_list()]

    def _present(self, ids: list[str]) -> set[str]:
        table = self._opened()
        if table is None or not ids:
            return set()
        found = table.search().where(f"id IN ({', '.join(map(_literal, ids))})").select(["id"]).limit(len(ids))
        return set(found.to_arrow()["id"].to_pylist())

    def _write(self, rows: NDArray[np.float32], records: Sequence[DocumentRecord]) -> None:
        if not records:
            return
        arrow = import_optional("pyarrow", extra="search")
        content = record_table(records, [""] * len(records))
        content = content.rename_columns([_column(name) for name in content.column_names])
        flat = arrow.array(rows.reshape(-1))
        content = content.append_column("vector", arrow.FixedSizeListArray.from_arrays(flat, rows.shape[1]))
        table = self._opened()
        if table is None:
            self._table = self._base.create_table(self.collection, content)
            return
        self._extend(table, content.schema)
        content = _fill(content, table.schema)
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(content)

    def _extend(self, table: Any, schema: Any) -> None:
        """Add the columns of new metadata to the table."""
        import_optional("pyarrow", extra="search")
        new = [field for field in schema if field.name not in table.schema.names]
        if new:
            table.add_columns(new)
            table.checkout_latest()

    def _delete(self, ids: list[str]) -> None:
        if ids:
            self._opened().delete(f"id IN ({', '.join(map(_literal, ids))})")


def sql(condition: Condition, types: dict[str, str]) -> str:
    """Translate a condition to SQL that is true or false, never null.

    Args:
        condition: The condition.
        types: Types of the columns.
    """
    if not isinstance(condition, Comparison):
        parts = [sql(part, types) for part in condition.parts]
        if condition.operator == "$not":
            return f"(NOT {parts[0]})"
        return "(" + (" AND " if condition.operator == "$and" else " OR ").join(parts) + ")"
    name = OWN_FIELDS.get(condition.field) or _column(METADATA + condition.field)
    column = f"`{name}`"
    if name not in types:
        return "(1 = 0)"
    if condition.operator == "$exists":
        return f"({column} IS NOT NULL)"
    values = [value for value in condition.values if types[name].startswith(_TYPES[value_kind(value)])]
    if not values:
        return "(1 = 0)"
    literals = [_literal(value) for value in values]
    if condition.operator == "$in":
        return f"({column} IS NOT NULL AND ({' OR '.join(f'{column} = {literal}' for literal in literals)}))"
    return f"({column} IS NOT NULL AND {column} {_SYMBOLS[condition.operator]} {literals[0]})"


def _column(name: str) -> str:
    """Return the name in LanceDB of a column of a segment."""
    return (
        _METADATA + quote(name.removeprefix(METADATA), safe=" ").replace(".", "%2E")
        if name.startswith(METADATA)
        else name
    )


def _field(column: str) -> str:
    return unquote(column.removeprefix(_METADATA))


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def _fill(content: Any, schema: Any) -> Any:
    """Give a table the columns of a schema, in its order; missing ones are null."""
    arrow = import_optional("pyarrow", extra="search")
    columns = []
    for field in schema:
        if field.name in content.column_names:
            columns.append(content[field.name].cast(field.type))
        else:
            columns.append(arrow.nulls(len(content), field.type))
    return arrow.table(columns, schema=schema)


def _record(row: dict[str, Any]) -> DocumentRecord:
    metadata = {_field(name): value for name, value in row.items() if name.startswith(_METADATA) and value is not None}
    return DocumentRecord(row["id"], row["kind"], row["text"], metadata)
