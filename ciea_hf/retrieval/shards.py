"""Shards of an index folder, with their checksums; the manifest lists them.

A shard is the files `shards/NAME.npy` (embeddings), `.codes.npy` (signs), `.arrow` (records), `.scales.npy` (int8
alone) and `.json` (sizes and checksums of the others), which is written last.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.files import file_checksum
from ciea_hf.retrieval.checksums import changed_files
from ciea_hf.retrieval.location import RemotePath, children, local_path, replace_json, replaced_file
from ciea_hf.retrieval.manifests import MANIFEST
from ciea_hf.retrieval.precision import StoredVectors
from ciea_hf.retrieval.segment import Segment
from ciea_hf.utils import import_optional, prefetch_map, short_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from ciea_hf.retrieval.location import Location
    from ciea_hf.retrieval.manifests import Entry, Manifest

logger = logging.getLogger(__name__)

SHARDS = "shards"
LOCKS = ".locks"
REQUESTS = 8  # to a remote file system at once


def write_shard(folder: Location, name: str, segment: Segment) -> Entry:
    """Write a shard into an index folder; it counts once its `.json` exists.

    Args:
        folder: Index folder.
        name: Name of the shard.
        segment: Content.

    Returns:
        The entry of the shard in the manifest.
    """
    contents = _contents(segment)
    for suffix, content in contents.items():
        with replaced_file(folder / SHARDS / f"{name}{suffix}") as temporary:
            temporary.write_bytes(content)
    entry = {
        "name": name,
        "documents": len(segment),
        "dimension": segment.dimension,
        "missing": list(segment.missing),
        "files": _checksums(contents),
    }
    replace_json(folder / SHARDS / f"{name}.json", entry, indent=None)
    return entry


def segment_digest(segment: Segment) -> str:
    """Hash the files that a segment is written as."""
    return _digest(_checksums(_contents(segment)))


def find_shard(folder: Location, name: str) -> Entry | None:
    """Return the entry of a complete shard; `None` if it is missing or a file of it has another size."""
    shards = folder / SHARDS
    try:
        content = (shards / f"{name}.json").read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return _complete_entry(content, name, lambda file: (shards / file).stat().st_size)


def find_shards(folder: Location, names: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of the complete shards among some; see [`find_shard`]. A remote folder is listed once."""
    if not isinstance(folder, RemotePath):
        found = {name: find_shard(folder, name) for name in names}
        return {name: entry for name, entry in found.items() if entry is not None}
    shards = folder / SHARDS
    sizes = shards.sizes() if names else {}

    def read(name: str) -> tuple[str, Entry | None]:
        try:
            content = (shards / f"{name}.json").read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return name, None
        return name, _complete_entry(content, name, sizes.__getitem__)

    listed = [name for name in names if f"{name}.json" in sizes]
    return {name: entry for name, entry in prefetch_map(read, listed, REQUESTS) if entry is not None}


def _complete_entry(content: str, name: str, size_of: Callable[[str], int]) -> Entry | None:
    """Parse the entry of a shard; `None` if it is invalid, or a file is missing or has another size."""
    try:
        entry: Entry = json.loads(content)
        sizes = [(size_of(f"{name}{suffix}"), file["bytes"]) for suffix, file in entry["files"].items()]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry if all(found == expected for found, expected in sizes) else None


def read_shard(folder: Path, entry: Entry, precision: str) -> Segment:
    """Open a shard, memory-mapped.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file does not match the manifest.
    """
    path = folder / SHARDS / entry["name"]
    arrays = {}
    for suffix in entry["files"]:
        if suffix.endswith(".npy"):
            try:
                # "c" maps privately: torch accepts such arrays without a copy, and the file cannot be changed
                arrays[suffix] = np.load(f"{path}{suffix}", mmap_mode="c" if entry["documents"] else None)
            except (ValueError, EOFError, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise ValueError(f"{path}{suffix} cannot be read: {error}; run `ciea index --verify`") from error
    table = read_table(folder, entry)
    counts = {len(table), *map(len, arrays.values())}
    if counts != {entry["documents"]}:
        raise ValueError(
            f"{path} is inconsistent: {entry['documents']} documents in {MANIFEST}, {sorted(counts)} found"
        )
    vectors = StoredVectors(arrays[".npy"], arrays.get(".scales.npy"))
    return Segment(
        vectors,
        arrays[".codes.npy"],
        table,
        precision,
        entry["dimension"],
        tuple(entry["missing"]),
        _digest(entry["files"]),
    )


def read_table(folder: Path, entry: Entry) -> pa.Table:
    """Open the records of a shard, memory-mapped; raises the errors of [`read_shard`]."""
    arrow = import_optional("pyarrow", extra="search")
    path = folder / SHARDS / f"{entry['name']}.arrow"
    try:
        return arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()
    except (arrow.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} cannot be read: {error}; run `ciea index --verify`") from error


def damaged_files(folder: Location, manifest: Manifest) -> list[str]:
    """Compare the files of an index with the checksums in its manifest.

    Returns:
        One line per file that is missing or differs.
    """

    def damage(file: tuple[str, str]) -> str | None:
        path, expected = folder / file[0], file[1]
        if not path.is_file():
            return f"{path} is missing"
        return None if _checksum(path) == expected else f"{path} differs from its checksum"

    workers = REQUESTS if isinstance(folder, RemotePath) else 0
    lines = prefetch_map(damage, shard_files(manifest["shards"] or []).items(), workers)
    return [line for line in lines if line is not None]


def _checksum(path: Location) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if isinstance(path, RemotePath) else file_checksum(path)


def check_shards(folder: Path, manifest: Manifest) -> None:
    """Compare the files of an index with the checksums in its manifest, those that were not compared before alone.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file differs.
    """
    expected = shard_files(manifest["shards"])
    changed = changed_files(folder, expected)
    if changed:
        raise ValueError(f"{folder / changed[0]} differs from its checksum; run `ciea index --verify`")


def shard_files(entries: Sequence[Entry], suffixes: Sequence[str] | None = None) -> dict[str, str]:
    """Return the checksums of the files of some shards, by path in the index folder.

    Args:
        entries: Entries of the shards.
        suffixes: Suffixes of the files, such as `".arrow"`; all if `None`.
    """
    return {
        f"{SHARDS}/{entry['name']}{suffix}": file["sha256"]
        for entry in entries
        for suffix, file in entry["files"].items()
        if suffixes is None or suffix in suffixes
    }


@contextmanager
def locked(folder: Location, name: str, wait: bool = True) -> Iterator[bool]:
    """Hold a lock of an index folder; the operating system releases the locks of a killed process.

    The locks of a remote folder are in the cache, so that they exclude processes of the same machine alone.

    Args:
        folder: Index folder.
        name: Name of the lock.
        wait: Whether to wait for the lock.

    Yields:
        Whether the lock is held; on file systems without locks always true, with a warning.

    Raises:
        OSError: If the lock's file cannot be written.
    """
    from filelock import FileLock, Timeout

    path = local_path(folder) / LOCKS / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        logger.warning("%s has no locks: only one process may write to this folder at a time", folder)
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def remove_unlisted(folder: Location, manifest: Manifest) -> None:
    """Remove the shards that a manifest does not list; processes that have mapped them keep them until they end."""
    names = {entry["name"] for entry in manifest["shards"] or []}
    for path in children(folder / SHARDS):
        if path.name.split(".")[0] not in names and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def _contents(segment: Segment) -> dict[str, bytes]:
    """Return the files of a shard by suffix."""
    contents = {
        ".npy": _npy(segment.vectors.rows),
        ".codes.npy": _npy(segment.codes),
        ".arrow": _arrow(segment.table),
    }
    if segment.vectors.scales is not None:
        contents[".scales.npy"] = _npy(segment.vectors.scales)
    return contents


def _checksums(contents: dict[str, bytes]) -> dict[str, Any]:
    return {
        suffix: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for suffix, content in contents.items()
    }


def _digest(files: dict[str, Any]) -> str:
    return short_hash(json.dumps({suffix: file["sha256"] for suffix, file in files.items()}, sort_keys=True), 12)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _arrow(table: Any) -> bytes:
    arrow = import_optional("pyarrow", extra="search")
    buffer = io.BytesIO()
    with arrow.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()
