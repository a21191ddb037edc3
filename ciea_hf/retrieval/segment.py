"""Segments: stored embeddings and records of consecutive documents of a corpus, in memory or memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.precision import StoredVectors, restore_vectors, sign_codes, store_vectors
from ciea_hf.retrieval.records import DocumentRecord
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

METADATA = "metadata."  # prefix of the columns of metadata
HASH = "hash"


@dataclass(frozen=True)
class Segment:
    """Embeddings and records of some documents.

    Attributes:
        vectors: Stored embeddings.
        codes: (documents, ceil(D / 8)) uint8, signs of the embeddings.
        table: Columns `id`, `kind`, `text`, `hash` and `metadata.NAME`.
        precision: Precision of the embeddings.
        dimension: Width D of the embeddings.
        missing: Rows without an embedding.
        digest: Hash of the files that the segment was read from; empty for a segment in memory.
    """

    vectors: StoredVectors
    codes: NDArray[np.uint8]
    table: pa.Table
    precision: str
    dimension: int
    missing: tuple[int, ...] = ()
    digest: str = ""

    def __len__(self) -> int:
        return len(self.vectors.rows)

    def embeddings(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the embeddings of some rows in float32, without a copy for a slice of float32."""
        scales = None if self.vectors.scales is None else self.vectors.scales[rows]
        return restore_vectors(StoredVectors(self.vectors.rows[rows], scales), self.precision, self.dimension)

    def select(self, rows: NDArray[np.int64]) -> Segment:
        """Return a segment of these rows, in memory."""
        kept = {int(row): number for number, row in enumerate(rows)}
        return Segment(
            StoredVectors(
                np.ascontiguousarray(self.vectors.rows[rows]),
                None if self.vectors.scales is None else self.vectors.scales[rows],
            ),
            np.ascontiguousarray(self.codes[rows]),
            self.table.take(rows).combine_chunks(),
            self.precision,
            self.dimension,
            tuple(kept[row] for row in self.missing if row in kept),
        )

    def column(self, name: str) -> list[Any]:
        """Return a column of the table as a list."""
        values: list[Any] = self.table[name].to_pylist()
        return values

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of some rows."""
        arrow = import_optional("pyarrow", extra="search")
        # From a buffer, because pyarrow imports pandas to convert an array, which takes longer than a search.
        buffer = arrow.py_buffer(np.ascontiguousarray(rows, dtype=np.int64))
        chosen = arrow.Array.from_buffers(arrow.int64(), len(rows), [None, buffer])
        found: list[str] = self.table["id"].take(chosen).to_pylist()
        return found

    def record(self, row: int) -> DocumentRecord:
        """Return the record of a row."""
        (content,) = self.table.slice(row, 1).to_pylist()
        metadata = {
            name.removeprefix(METADATA): _without_nulls(value)
            for name, value in content.items()
            if name.startswith(METADATA) and value is not None
        }
        return DocumentRecord(content["id"], content["kind"], content["text"], metadata)


def make_segment(
    embeddings: NDArray[np.float32],
    records: Sequence[DocumentRecord],
    precision: str = "float32",
    hashes: Sequence[str] | None = None,
    missing: Sequence[int] = (),
) -> Segment:
    """Create a segment in memory.

    Args:
        embeddings: (documents, D).
        records: Records of the documents.
        precision: Storage precision of the embeddings.
        hashes: Hashes of the documents' contents; empty if `None`.
        missing: Rows without an embedding.

    Raises:
        ValueError: If embeddings and records differ in number, or a field of the metadata mixes types.
    """
    if len(embeddings) != len(records):
        raise ValueError(f"`embeddings` and records must be equally many; got {len(embeddings)} and {len(records)}")
    table = record_table(records, [""] * len(records) if hashes is None else hashes)
    vectors = store_vectors(embeddings, precision)
    return Segment(vectors, sign_codes(embeddings), table, precision, embeddings.shape[1], tuple(missing))


def record_table(records: Sequence[DocumentRecord], hashes: Sequence[str]) -> pa.Table:
    """Create the table of a segment; raises the `ValueError` of [`make_segment`]."""
    arrow = import_optional("pyarrow", extra="search")
    text = arrow.large_string()
    columns = {
        "id": arrow.array([record.id for record in records], text),
        "kind": arrow.array([record.kind for record in records], arrow.string()),
        "text": arrow.array([record.text for record in records], text),
        HASH: arrow.array(list(hashes), arrow.string()),
    }
    for name in sorted({name for record in records for name in record.metadata}):
        values = [record.metadata.get(name) for record in records]
        columns[METADATA + name] = _metadata_column(arrow, name, values)
    return arrow.table(columns)


def _metadata_column(arrow: Any, name: str, values: list[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return arrow.array(values, arrow.float64())
    if len(kinds) > 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"the metadata {name!r} must have one type in all documents; got {found}")
    try:
        return arrow.array(values)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError, OverflowError) as error:
        raise ValueError(f"the metadata {name!r} cannot be stored: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value
