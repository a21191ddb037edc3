"""Corpora of parquet files as memory-mapped tables, with the same documents as when the rows are read one by one."""

from __future__ import annotations

import glob
from collections import Counter
from typing import TYPE_CHECKING, Any

from ciea_hf.data.dataset import column_values, corpus_features
from ciea_hf.data.issues import IssueHandler, Location
from ciea_hf.data.parsing import Entry
from ciea_hf.data.readers.base import without_repetitions
from ciea_hf.data.readers.tables import ROWS_AT_ONCE, columns_of, one_line, saved_table, schema_of
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import datasets

    from ciea_hf.data.readers.fields import CorpusEntry

IDS = ("id", "_id", "corpus-id", "corpus_id", "docid", "doc_id", "text_id", "img_id")


def mapped(files: Sequence[Path]) -> datasets.Dataset:
    """Load parquet files as one memory-mapped table.

    Raises:
        ValueError: If a file is corrupt; the message names it.
    """
    library = import_optional("datasets", extra="eval")
    parquet = import_optional("pyarrow.parquet", extra="eval")
    for file in files:
        columns_of(file)
    if files[0].is_dir():
        return saved_table(files[0])
    full = [file for file in files if parquet.read_metadata(file).num_rows]
    if not full:
        empty: datasets.Dataset = library.Dataset(parquet.read_table(files[0]))
        return empty
    names = {"rows": [glob.escape(str(file)) for file in full]}
    library.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would report the loading of local files to a server
    try:
        table: datasets.Dataset = library.load_dataset("parquet", data_files=names, split="rows")
    except library.exceptions.DatasetGenerationError as error:
        for file in full:
            _read_through(file)
        raise ValueError(f"{full[0].parent}: {one_line(error.__cause__ or error)}") from error
    return table


def _read_through(file: Path) -> None:
    """Read all of a file once.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with import_optional("pyarrow.parquet", extra="eval").ParquetFile(file) as table:
            for _ in table.iter_batches(batch_size=ROWS_AT_ONCE):
                pass
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {one_line(error)}") from error


def same_columns(files: Sequence[Path], columns: Sequence[str], all_of_them: bool = False) -> bool:
    """Return whether parquet files have the same columns of the usual types, so that they can be mapped as one table.

    Args:
        files: The files.
        columns: Columns that are read.
        all_of_them: Whether the files must have all of these columns.

    Raises:
        ValueError: If a file is not a parquet file.
    """
    types = import_optional("pyarrow.types", extra="eval")

    def is_usual(name: str, kind: Any) -> bool:
        if name == "image" and types.is_string(kind):  # paths, each of which is checked when its row is read
            return False
        if types.is_struct(kind):
            parts = {field.name: field.type for field in kind}
            return (
                set(parts) == {"bytes", "path"} and types.is_binary(parts["bytes"]) and types.is_string(parts["path"])
            )
        return bool(types.is_string(kind) or types.is_integer(kind) or types.is_binary(kind))

    schemas = [{field.name: field.type for field in schema_of(file) if field.name in columns} for file in files]
    if not schemas or (all_of_them and len(schemas[0]) < len(columns)):
        return False
    return all(found == schemas[0] for found in schemas) and all(is_usual(*column) for column in schemas[0].items())


def mapped_corpus(
    table: datasets.Dataset,
    image: str | None,
    document: Callable[[Entry], CorpusEntry | None],
    where: str,
    report: IssueHandler,
    further: datasets.Dataset | None = None,
) -> datasets.Dataset:
    """Create a corpus from a memory-mapped table, without reading the bytes of images.

    The documents are those that `document` makes of the rows, as when the rows are read one by one.

    Args:
        table: Table.
        image: Column of images (bytes, or dicts of bytes and path), or `None`.
        document: Makes a document of a row; `None` for a row without one.
        where: Name of the table, for locations.
        report: Handler of issues.
        further: Further columns of the table, kept as metadata.
    """
    from ciea_hf.modeling.inputs_ciea import input_kind  # late: it imports torch

    library = import_optional("datasets", extra="eval")
    kept: list[int] = []
    documents: list[CorpusEntry] = []
    found = (document(entry) for entry in _rows_without_bytes(table, image, where))
    for made in without_repetitions((made for made in found if made is not None), report):
        kept.append((made.location.number or 1) - 1)
        documents.append(made)
    features = corpus_features()
    columns = {
        "id": [made.id for made in documents],
        "text": [made.text for made in documents],
        "modality": [input_kind(made.text, made.image) for made in documents],
    }
    narrow = library.Dataset.from_dict(columns, features=library.Features({name: features[name] for name in columns}))
    images = _image_column(table, image, kept, documents)
    parts = [narrow, images.cast_column("image", features["image"])]
    if further is not None and further.column_names:
        parts.append(further.select(kept) if len(kept) < len(further) else further)
    return library.concatenate_datasets(parts, axis=1)


def _rows_without_bytes(table: datasets.Dataset, image: str | None, where: str) -> Iterator[Entry]:
    """Yield the rows of a table; bytes of images are replaced by empty ones, except those of repeated ids."""
    compute = import_optional("pyarrow.compute", extra="eval")
    ids = [name for name in table.column_names if name in IDS]
    repeated = {value for value, count in Counter(column_values(table, ids[0])).items() if count > 1} if ids else set()
    number = 0
    for batch in table.with_format("arrow").iter(batch_size=1000):
        rows = batch.drop_columns([image]).to_pylist() if image else batch.to_pylist()
        column = batch[image].combine_chunks() if image else None
        struct = column is not None and import_optional("pyarrow.types", extra="eval").is_struct(column.type)
        present = (
            None if column is None else compute.is_valid(compute.struct_field(column, "bytes") if struct else column)
        )
        for offset, row in enumerate(rows):
            number += 1
            if column is not None and present is not None:
                if ids and row[ids[0]] in repeated:
                    row[image] = column[offset].as_py()
                else:
                    path = column.field("path")[offset].as_py() if struct and column[offset].is_valid else None
                    row[image] = {"bytes": b"" if present[offset].as_py() else None, "path": path}
            yield Entry(Location(where, number, "row"), row)


def _image_column(
    table: datasets.Dataset, image: str | None, kept: list[int], documents: Sequence[CorpusEntry]
) -> datasets.Dataset:
    """Return the images of the kept rows, mapped, with the resolved paths of those that are files."""
    library = import_optional("datasets", extra="eval")
    feature = library.Features({"image": corpus_features()["image"]})
    if image is None:
        return library.Dataset.from_dict({"image": [None] * len(kept)}, features=feature)
    images = table.select_columns([image]).rename_columns({image: "image"} if image != "image" else {})
    images = images.cast_column("image", feature["image"])
    if len(kept) < len(table):
        images = images.select(kept)
    if not any(made.image is not None and made.image["bytes"] is None for made in documents):
        return images
    arrow, compute = (import_optional(name, extra="eval") for name in ("pyarrow", "pyarrow.compute"))
    column = images.with_format("arrow")[:]["image"].combine_chunks()
    paths = arrow.array([made.image and made.image["path"] for made in documents], arrow.string())
    lacking = arrow.array([made.image is None for made in documents])
    parts = [compute.struct_field(column, "bytes"), paths]
    joined = arrow.StructArray.from_arrays(parts, ["bytes", "path"], mask=lacking)
    return library.Dataset(arrow.table({"image": joined}, schema=feature.arrow_schema))
