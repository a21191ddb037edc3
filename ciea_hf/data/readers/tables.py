"""Parquet files: their shards, and their rows with locations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ciea_hf.data.issues import IssueHandler, Location
from ciea_hf.data.parsing import Entry
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import datasets


ROWS_AT_ONCE = 200


def shards(folder: Path, name: str) -> list[Path]:
    """Return the files of a table: `NAME.parquet`, `NAME-00000-of-00002.parquet`, or all in a folder.

    Raises:
        FileNotFoundError: If a file of a numbered series is missing.
    """
    single = folder / f"{name}.parquet"
    if single.is_file():
        return [single]
    return complete(_visible(folder, f"{name}-*.parquet") or _visible(folder / name, "*.parquet"))


def shards_by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files of a folder by split, with which their names begin, or which is their subfolder.

    Files that are only numbered, as other libraries write them (`0000.parquet`, `part.0.parquet`), belong to the split
    `train`, as in `datasets`.

    Raises:
        FileNotFoundError: If a file of a numbered series is missing.
    """
    found: dict[str, list[Path]] = {}
    for file in _visible(folder, "*.parquet"):
        stem = re.sub(r"-\d{5}(-of-\d{5})?$", "", file.stem)
        split = "train" if re.fullmatch(r"(part|file|chunk)?[-_.]?\d[\w.-]*", stem) else stem
        found.setdefault(split, []).append(file)
    for file in _visible(folder, "*/*.parquet"):
        found.setdefault(file.parent.name, []).append(file)
    for saved in (folder, *_visible(folder, "*")):
        if is_saved(saved):
            found["train" if saved == folder else saved.name] = [saved]
    return {split: complete(files) for split, files in found.items()}


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern, without hidden ones, such as `._x.parquet`."""
    files = sorted(folder.glob(pattern))
    return [file for file in files if not any(part[0] in "._" for part in file.relative_to(folder).parts)]


def complete(files: list[Path]) -> list[Path]:
    """Check that a series of files, `-00000-of-00002` and so on, is complete.

    Raises:
        FileNotFoundError: If one is missing; the message names it.
    """
    for file in files:
        match = re.search(r"-(\d{5})-of-(\d{5})$", file.stem)
        for number in range(int(match[2]) if match else 0):
            name = f"{file.stem[: match.start()] if match else ''}-{number:05d}-of-{match[2] if match else ''}"
            if not file.with_name(f"{name}{file.suffix}").is_file():
                raise FileNotFoundError(f"{file.parent}: {name}{file.suffix} is missing from its series of files")
    return files


def is_saved(folder: Path) -> bool:
    """Return whether a folder is a data set of `datasets`, written by `save_to_disk`."""
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def saved_table(folder: Path) -> datasets.Dataset:
    """Return the data set in a folder written by `save_to_disk`, memory-mapped.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        table: datasets.Dataset = import_optional("datasets", extra="eval").load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a data set written by `save_to_disk`: {one_line(error)}") from error
    return table


def schema_of(file: Path) -> Any:
    """Return the schema of a parquet file, or of a folder written by `save_to_disk`.

    Raises:
        ValueError: If it is neither.
    """
    if file.is_dir():
        return saved_table(file).features.arrow_schema
    try:
        return import_optional("pyarrow.parquet", extra="eval").read_schema(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is not a parquet file: {one_line(error)}") from error


def columns_of(file: Path) -> list[str]:
    """Return the names of a parquet file's columns; raises the errors of [`schema_of`]."""
    names: list[str] = schema_of(file).names
    return names


def rows(
    files: Sequence[Path], columns: Sequence[str], report: IssueHandler, needed: Sequence[str] = ()
) -> Iterator[Entry]:
    """Yield the rows of parquet files.

    Args:
        files: The files.
        columns: Columns to read, where they exist.
        report: Handler of issues.
        needed: Columns that every file must have.
    """
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
        read = _saved_batches if file.is_dir() else _batches
        for batch in read(file, [column for column in there if column in (*needed, *columns)], report):
            for row in batch:
                number += 1
                yield Entry(Location(str(file), number, "row"), row)


def _saved_batches(folder: Path, columns: Sequence[str], report: IssueHandler) -> Iterator[list[dict[str, Any]]]:
    try:
        for batch in saved_table(folder).select_columns(list(columns)).with_format("arrow").iter(ROWS_AT_ONCE):
            yield batch.to_pylist()
    except (OSError, ValueError) as error:
        report("unreadable", Location(str(folder)), None, one_line(error))


def _batches(file: Path, columns: Sequence[str], report: IssueHandler) -> Iterator[list[dict[str, Any]]]:
    number = 1
    with import_optional("pyarrow.parquet", extra="eval").ParquetFile(file) as table:
        batches = table.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns))
        while True:
            try:
                batch = next(batches, None)
                found = [] if batch is None else batch.to_pylist()
            except (OSError, ValueError) as error:  # pyarrow raises either for corrupt files and texts
                message = f"cannot be read from here: {one_line(error)}"
                report("unreadable", Location(str(file), number, "row"), None, message)
                return
            if batch is None:
                return
            yield found
            number += len(batch)


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    return " ".join(str(error).split())


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


def encoded_image(value: Any) -> dict[str, Any] | None:
    """Convert an image in a table, bytes or a dict of bytes and path, to the encoded form; `None` stays `None`.

    Raises:
        ValueError: If it has another type, or there are several images.
    """
    if isinstance(value, list) and all(isinstance(item, dict) or item is None for item in value):
        if len(value) > 1:
            raise ValueError(f"a document must have one image; got {len(value)}")
        value = value[0] if value else None
    if value is None:
        return None
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(content, str) and not isinstance(value, dict):
        return {"bytes": None, "path": content}
    if isinstance(content, list):
        try:
            content = bytes(content)
        except (TypeError, ValueError):
            raise ValueError("the bytes of an image must be numbers from 0 to 255") from None
    if content is not None and not isinstance(content, bytes):
        raise ValueError(f"an image must be bytes, or have bytes or a path; got {type(content).__name__}")
    if content is None and path is None:
        if isinstance(value, dict) and any(item is not None for item in value.values()):
            raise ValueError(f"an image must be bytes, or have bytes or a path; got {', '.join(map(str, value))}")
        return None
    return {"bytes": content, "path": path}
