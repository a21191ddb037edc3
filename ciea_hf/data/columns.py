"""Columns of a retrieval data set: how to read one without its neighbours, how to make a corpus or queries of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.utils import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import datasets
    import pyarrow as pa

CORPUS_COLUMNS = ("id", "text", "image", "modality")
QUERY_COLUMNS = ("id", "text")
QRELS_COLUMNS = ("query-id", "corpus-id", "score")
MODALITIES = ("text", "image", "image,text")


def column_values(dataset: datasets.Dataset, column: str) -> list[Any]:
    """Return one column as a list, without touching the others (images above all)."""
    values: list[Any] = dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    return values


def corpus_features() -> datasets.Features:
    """Return the columns of a corpus as :class:`datasets.Features`."""
    datasets = require("datasets", extra="eval")
    text = datasets.Value("string")
    return datasets.Features({"id": text, "text": text, "image": datasets.Image(), "modality": text})


def modality_of(text: str | None, image: Any) -> str:
    """Return what a document is made of: ``"text"``, ``"image"`` or ``"image,text"``.

    Raises:
        ValueError: If it has neither a text nor an image.
    """
    if image is None and text is None:
        raise ValueError("a document needs a text or an image")
    if image is None:
        return "text"
    return "image" if text is None else "image,text"


def corpus_from_columns(ids: Sequence[str], texts: Sequence[str | None], images: Sequence[Any]) -> datasets.Dataset:
    """Make a corpus of parallel columns.

    Args:
        ids: The documents' ids.
        texts: Their texts or captions; None where there is none.
        images: What :class:`datasets.Image` encodes (a path, a PIL image, a dict of bytes and path), or the bytes of an
            image file; None where there is none.

    Raises:
        ValueError: If an id occurs twice, a document is empty or the columns differ in length.
    """
    if len(set(ids)) != len(ids):
        raise ValueError(f"ids must be unique, got {len(ids)} with {len(set(ids))} different")
    encoded = [{"bytes": image, "path": None} if isinstance(image, bytes) else image for image in images]
    columns = {
        "id": list(ids),
        "text": list(texts),
        "image": encoded,
        "modality": [modality_of(text, image) for text, image in zip(texts, encoded, strict=True)],
    }
    return require("datasets", extra="eval").Dataset.from_dict(columns, features=corpus_features())


def corpus_table(rows: Sequence[tuple[str, str | None, Mapping[str, Any] | None]]) -> pa.Table:
    """Make the rows of a corpus of ids, texts and images, the images encoded: dicts of bytes and path."""
    arrow = require("pyarrow", extra="eval")
    columns = [
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [modality_of(row[1], row[2]) for row in rows],
    ]
    schema = corpus_features().arrow_schema
    return arrow.Table.from_arrays(
        [arrow.array(values, type=kind) for values, kind in zip(columns, schema.types, strict=True)], schema=schema
    )


def corpus_of_tables(tables: Iterable[pa.Table]) -> datasets.Dataset:
    """Make a corpus of tables of rows."""
    table = require("pyarrow", extra="eval").concat_tables(tables)
    return require("datasets", extra="eval").Dataset(table)


def queries_from_columns(ids: Sequence[str], texts: Sequence[str]) -> datasets.Dataset:
    """Make the queries of a data set from parallel columns."""
    datasets = require("datasets", extra="eval")
    features = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"id": list(ids), "text": list(texts)}, features=features)


def qrels_table(qrels: Mapping[str, Mapping[str, int]]) -> datasets.Dataset:
    """Make the table of judgements, one row for each query and document."""
    datasets = require("datasets", extra="eval")
    rows = [(query, document, score) for query, judged in qrels.items() for document, score in judged.items()]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = [datasets.Value("string"), datasets.Value("string"), datasets.Value("int64")]
    features = datasets.Features(dict(zip(QRELS_COLUMNS, kinds, strict=True)))
    return datasets.Dataset.from_dict(dict(zip(QRELS_COLUMNS, map(list, columns), strict=True)), features=features)
