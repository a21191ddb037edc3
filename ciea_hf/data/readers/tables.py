"""Parquet files: their shards, and their rows with locations."""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING, Any

from ciea_hf.data.dataset import column_values, corpus_features
from ciea_hf.data.issues import IssueHandler, Location
from ciea_hf.data.parsing import Entry
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import datasets

_ROWS_AT_ONCE = 200


def shards(folder: Path, name: str) -> list[Path]:
    """Return the files of a table: `NAME.parquet`, `NAME-00000-of-00002.parquet`, or all in a folder."""
    single = folder / f"{name}.parquet"
    if single.is_file():
        return [single]
    return sorted(folder.glob(f"{name}-*.parquet")) or sorted((folder / name).glob("*.parquet"))


def shards_by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files of a folder by split, with which their names begin."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        found.setdefault(re.sub(r"-\d{5}(-of-\d{5})?$", "", file.stem), []).append(file)
    return found


def columns_of(file: Path) -> list[str]:
    """Return the names of a parquet file's columns.

    Raises:
        ValueError: If it is not a parquet file.
    """
    try:
        names: list[str] = import_optional("pyarrow.parquet", extra="eval").read_schema(file).names
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is not a parquet file: {_one_line(error)}") from error
    return names


def rows(
    files: Sequence[Path], needed: Sequence[str], optional: Sequence[str], report: IssueHandler
) -> Iterator[Entry]:
    """Yield the rows of parquet files, with the requested columns."""
    for file in files:
        try:
            there = columns_of(file)
        except ValueError as error:
            report("unreadable", Location(str(file)), None, str(error))
            continue
        missing = [column for column in needed if column not in there]
        if missing:
            report("unreadable", Location(str(file)), None, f"no column {missing}; it has {there}")
            continue
        number = 0
        for batch in _batches(file, [*needed, *(column for column in optional if column in there)], report):
            for row in batch:
                number += 1
                yield Entry(Location(str(file), number, "row"), row)


def _batches(file: Path, columns: Sequence[str], report: IssueHandler) -> Iterator[list[dict[str, Any]]]:
    number = 1
    with import_optional("pyarrow.parquet", extra="eval").ParquetFile(file) as table:
        batches = table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns))
        while True:
            try:
                batch = next(batches, None)
            except (OSError, ValueError) as error:  # pyarrow raises either for corrupt files
                message = f"cannot be read from here: {_one_line(error)}"
                report("unreadable", Location(str(file), number, "row"), None, message)
                return
            if batch is None:
                return
            yield batch.to_pylist()
            number += len(batch)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def mapped(files: Sequence[Path]) -> datasets.Dataset:
    """Load parquet files as one memory-mapped table.

    Raises:
        ValueError: If a file is corrupt; the message names it.
    """
    library = import_optional("datasets", extra="eval")
    parquet = import_optional("pyarrow.parquet", extra="eval")
    for file in files:
        columns_of(file)
    full = [file for file in files if parquet.read_metadata(file).num_rows]
    if not full:
        empty: datasets.Dataset = library.Dataset(parquet.read_table(files[0]))
        return empty
    names = {"rows": [glob.escape(str(file)) for file in full]}
    try:
        table: datasets.Dataset = library.load_dataset("parquet", data_files=names, split="rows")
    except library.exceptions.DatasetGenerationError as error:
        for file in full:
            _read_through(file)
        raise ValueError(f"{full[0].parent}: {_one_line(error.__cause__ or error)}") from error
    return table


def _read_through(file: Path) -> None:
    """Read all of a file once.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with import_optional("pyarrow.parquet", extra="eval").ParquetFile(file) as table:
            for _ in table.iter_batches(batch_size=_ROWS_AT_ONCE):
                pass
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {_one_line(error)}") from error


def refuse_repeated(ids: Sequence[str], where: str) -> None:
    """Check that ids are unique.

    Raises:
        ValueError: If an id repeats; the message names it and its rows.
    """
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for row, name in enumerate(ids, start=1):
        if first.setdefault(name, row) != row:
            repeated = len(ids) - len(set(ids))
            raise ValueError(
                f"{where}: rows {first[name]} and {row} have the same id {name!r}; {repeated} ids repeat "
                "(`ciea data check --fix` writes a copy without them)"
            )


def corpus_of_columns(
    table: datasets.Dataset, name: str, text: str | None, image: str | None, where: str, all_images: bool = False
) -> datasets.Dataset:
    """Create a corpus from columns of a memory-mapped table, without reading images.

    Args:
        table: Table.
        name: Column of ids.
        text: Column of texts or captions, or `None`.
        image: Column of images (bytes, or dicts of bytes and path), or `None`.
        where: Name of the table, for errors.
        all_images: Whether every row is an image, which is missing if the cell is empty; otherwise such a row is a
            text.

    Raises:
        ValueError: If a row has no id.
    """
    datasets = import_optional("datasets", extra="eval")
    compute = import_optional("pyarrow.compute", extra="eval")
    features = corpus_features()
    texts = [None] * len(table) if text is None else [value or None for value in column_values(table, text)]
    if image is None:
        held = datasets.Dataset.from_dict({"image": [None] * len(table)})
    else:
        held = table.select_columns([image]).rename_columns({image: "image"})
    images = held.cast_column("image", features["image"])
    column = images.with_format("arrow")[:]["image"]
    without = [compute.is_null(compute.struct_field(column, part)) for part in ("bytes", "path")]
    lacking = [no_image and not all_images for no_image in compute.and_(*without).to_pylist()]
    ids = column_values(table, name)
    if None in ids:
        raise ValueError(f"{where}, row {ids.index(None) + 1}: {name!r} must be a text or a number; got nothing")
    narrow = {
        "id": list(map(str, ids)),
        "text": ["" if value is None and no_image else value for value, no_image in zip(texts, lacking, strict=True)],
        "modality": [
            "text" if no_image else "image" if value is None else "image,text"
            for value, no_image in zip(texts, lacking, strict=True)
        ],
    }
    plain = datasets.Features({column: features[column] for column in narrow})
    return datasets.concatenate_datasets([datasets.Dataset.from_dict(narrow, features=plain), images], axis=1)


def encoded_image(value: Any) -> dict[str, Any] | None:
    """Convert an image in a table, bytes or a dict of bytes and path, to the encoded form; `None` stays `None`.

    Raises:
        ValueError: If it has another type.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        return {"bytes": None, "path": value}
    if not isinstance(value, dict):
        raise ValueError(f"an image must be bytes, or have bytes or a path; got {type(value).__name__}")  # noqa: TRY004
    content, path = value.get("bytes"), value.get("path")
    return None if content is None and path is None else {"bytes": content, "path": path}
