"""Records of documents: what an index stores beside their embeddings."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ciea_hf.data.dataset import column_values, further_columns, unpack_metadata

if TYPE_CHECKING:
    import datasets

    from ciea_hf.data import RetrievalDataset


@dataclass(frozen=True)
class DocumentRecord:
    """What an index stores of a document beside its embedding, for search results and filters.

    Attributes:
        id: Document id.
        kind: `"image"`, with or without a caption, or `"text"`.
        text: Text or caption; `None` for an image without one.
        metadata: Further columns of the corpus; missing values are omitted.
    """

    id: str
    kind: str = "text"
    text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def document_records(dataset: RetrievalDataset) -> list[DocumentRecord]:
    """List id, kind, text and metadata of every document without decoding an image."""
    ids, kinds, texts = dataset.corpus_ids, dataset.document_kinds, column_values(dataset.corpus, "text")
    rows = zip(ids, texts, metadata_rows(dataset.corpus), strict=True)
    return [DocumentRecord(name, kinds[name], text, metadata) for name, text, metadata in rows]


def metadata_rows(corpus: datasets.Dataset) -> list[dict[str, Any]]:
    """Read the metadata of all documents of a corpus.

    A column `metadata` of JSON objects, as the reader of JSON lines makes it, is merged with the other columns. Dates
    become ISO texts. Missing values are omitted, also NaN.

    Args:
        corpus: Corpus of a data set.

    Returns:
        One dict per document.
    """
    names = further_columns(corpus.features.arrow_schema)
    if not names:
        return [{} for _ in range(len(corpus))]
    rows = corpus.select_columns(names).with_format("arrow")[:].to_pylist()
    return [_plain(unpack_metadata(row)) for row in rows]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    values = {name: _json_value(value) for name, value in row.items()}
    return {name: value for name, value in values.items() if value is not None}


def _json_value(value: Any) -> Any:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return _plain(value)
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)
