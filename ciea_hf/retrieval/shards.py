"""Files of an index folder: shards with their checksums, and the manifest that lists them.

A shard is the files `shards/NAME.npy` (embeddings), `.codes.npy` (signs), `.arrow` (records), `.scales.npy` (int8
alone) and `.json` (sizes and checksums of the others), which is written last. The manifest is replaced atomically, so a
reader sees the index as it was before a change or after it.
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

from ciea_hf.choices import PRECISIONS
from ciea_hf.files import atomic_write, file_checksum, write_json
from ciea_hf.retrieval.checksums import changed_files, read_checked, write_checked
from ciea_hf.retrieval.precision import StoredVectors
from ciea_hf.retrieval.segment import Segment
from ciea_hf.utils import import_optional, short_hash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SHARDS = "shards"
LOCKS = ".locks"
FORMAT = 2
_REQUIRED = {
    "format": int, "model": str, "corpus": str, "normalized": bool, "on_broken_image": str, "precision": str,
    "shard_size": int, "source": dict,
}  # fmt: skip

Entry = dict[str, Any]
Manifest = dict[str, Any]


def write_shard(folder: Path, name: str, segment: Segment) -> Entry:
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
        with atomic_write(folder / SHARDS / f"{name}{suffix}") as temporary:
            temporary.write_bytes(content)
    entry = {
        "name": name,
        "documents": len(segment),
        "dimension": segment.dimension,
        "missing": list(segment.missing),
        "files": _checksums(contents),
    }
    write_json(folder / SHARDS / f"{name}.json", entry, indent=None)
    return entry


def segment_digest(segment: Segment) -> str:
    """Hash the files that a segment is written as."""
    return _digest(_checksums(_contents(segment)))


def find_shard(folder: Path, name: str) -> Entry | None:
    """Return the entry of a complete shard; `None` if it is missing or a file of it has another size."""
    try:
        entry: Entry = json.loads((folder / SHARDS / f"{name}.json").read_text(encoding="utf-8"))
        sizes = [((folder / SHARDS / f"{name}{suffix}").stat().st_size, file["bytes"])
                 for suffix, file in entry["files"].items()]  # fmt: skip
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
    arrow = import_optional("pyarrow", extra="search")
    try:
        table = arrow.ipc.open_file(arrow.memory_map(f"{path}.arrow")).read_all()
    except (arrow.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}.arrow cannot be read: {error}; run `ciea index --verify`") from error
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


def damaged_files(folder: Path, manifest: Manifest) -> list[str]:
    """Compare the files of an index with the checksums in its manifest.

    Returns:
        One line per file that is missing or differs.
    """
    found = []
    for entry in manifest["shards"] or []:
        for suffix, expected in entry["files"].items():
            path = folder / SHARDS / f"{entry['name']}{suffix}"
            if not path.is_file():
                found.append(f"{path} is missing")
            elif file_checksum(path) != expected["sha256"]:
                found.append(f"{path} differs from its checksum")
    return found


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        FileNotFoundError: If the folder has none.
        ValueError: If it cannot be read or has an unexpected format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not an index: {MANIFEST} not found")
    manifest: Manifest = read_checked(path)
    if not _is_manifest(manifest):
        raise ValueError(f"{folder} is not an index: {MANIFEST} has an unexpected format")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of an index, atomically."""
    write_checked(folder / MANIFEST, manifest)


def check_shards(folder: Path, manifest: Manifest) -> None:
    """Compare the files of an index with the checksums in its manifest, those that were not compared before alone.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file differs.
    """
    expected = {
        f"{SHARDS}/{entry['name']}{suffix}": file["sha256"]
        for entry in manifest["shards"]
        for suffix, file in entry["files"].items()
    }
    changed = changed_files(folder, expected)
    if changed:
        raise ValueError(f"{folder / changed[0]} differs from its checksum; run `ciea index --verify`")


@contextmanager
def locked(folder: Path, name: str, wait: bool = True) -> Iterator[bool]:
    """Hold a lock of an index folder; the operating system releases the locks of a killed process.

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

    path = folder / LOCKS / f"{name}.lock"
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


def remove_unlisted(folder: Path, manifest: Manifest) -> None:
    """Remove the shards that a manifest does not list; processes that have mapped them keep them until they end."""
    names = {entry["name"] for entry in manifest["shards"] or []}
    for path in (folder / SHARDS).iterdir():
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


def _is_manifest(content: Any) -> bool:
    if not isinstance(content, dict) or any(type(content.get(name)) is not kind for name, kind in _REQUIRED.items()):
        return False
    if content["format"] != FORMAT or content["precision"] not in PRECISIONS or content["shard_size"] < 1:
        return False
    shards = content.get("shards")
    return shards is None or (isinstance(shards, list) and all(map(_is_entry, shards)))


def _is_entry(entry: Any) -> bool:
    kinds = {"name": str, "documents": int, "dimension": int, "missing": list, "files": dict, "deleted": list}
    if not isinstance(entry, dict) or any(type(entry.get(name)) is not kind for name, kind in kinds.items()):
        return False
    rows = [*entry["missing"], *entry["deleted"]]
    return (
        not {"/", "\\", "."} & set(entry["name"])
        and {".npy", ".codes.npy", ".arrow"} <= entry["files"].keys() <= {".npy", ".codes.npy", ".arrow", ".scales.npy"}
        and all(isinstance(file, dict) and {"bytes", "sha256"} <= file.keys() for file in entry["files"].values())
        and all(type(row) is int and 0 <= row < entry["documents"] for row in rows)
    )
