"""Local copies of remote index folders, in the cache: what is searched is memory-mapped from there.

A copy is an index folder, without the entries next to the shards. Only files whose checksum differs from the remote
manifest are downloaded, to a temporary name; the manifest of the copy is replaced after them, so that a reader sees the
old or the new state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.files import atomic_write, file_checksum
from ciea_hf.retrieval.checksums import changed_files, read_checked, write_checked
from ciea_hf.retrieval.location import RemotePath, open_location
from ciea_hf.retrieval.manifests import DESCRIPTION, Manifest, read_manifest, write_manifest
from ciea_hf.retrieval.shards import REQUESTS, find_shards, locked, remove_unlisted, shard_files
from ciea_hf.utils import prefetch_map

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from ciea_hf.retrieval.location import Location

RETRIES = 10


def local_folder(location: str | os.PathLike[str]) -> Path:
    """Return the folder that an index is read from: a local folder itself, and an up-to-date copy of a remote one.

    Raises:
        FileNotFoundError: If a remote folder is not an index.
        ValueError: If a remote index is incomplete or a file of it is damaged.
    """
    folder = open_location(location)
    if isinstance(folder, Path):
        return folder
    with locked(folder, "mirror"):  # an older state cannot replace a newer one
        for attempt in range(RETRIES):
            manifest = read_manifest(folder)
            require_complete(folder, manifest)
            try:
                _download(folder, shard_files(manifest["shards"]))
            except FileNotFoundError as error:
                if attempt + 1 == RETRIES or read_manifest(folder) == manifest:
                    raise ValueError(f"{folder} is incomplete: {error}") from error
                continue  # the index was replaced in between
            break
        _copy_description(folder)
        write_manifest(folder.mirror, manifest)
        remove_unlisted(folder.mirror, manifest)
    return folder.mirror


def local_files(folder: Location, expected: Mapping[str, str]) -> Path:
    """Return a local folder that holds some files of an index folder: itself, or the copies of a remote one.

    Args:
        folder: Index folder.
        expected: Checksum of each file, by its path in the folder.

    Raises:
        FileNotFoundError: If a file of a remote folder is missing.
        ValueError: If it differs from its checksum.
    """
    if isinstance(folder, Path):
        return folder
    with locked(folder, "mirror"):
        _download(folder, expected)
    return folder.mirror


def require_complete(folder: Location, manifest: Manifest) -> None:
    """Check that an index is complete.

    Raises:
        ValueError: If shards are missing; the message says how many.
    """
    if manifest["shards"] is not None:
        return
    planned = manifest.get("planned") or []
    absent = len(planned) - len(find_shards(folder, planned))
    raise ValueError(
        f"{folder} is incomplete: {absent} of {len(planned)} shards are missing; repeat `ciea index` to continue"
    )


def _download(folder: RemotePath, expected: Mapping[str, str]) -> None:
    """Download the files that are missing from the local copy or differ from their checksums."""
    mirror = folder.mirror
    there = {name: checksum for name, checksum in expected.items() if (mirror / name).is_file()}
    kept = there.keys() - changed_files(mirror, there)

    def fetch(name: str) -> None:
        with atomic_write(mirror / name) as temporary:
            (folder / name).download(temporary)
            if file_checksum(temporary) != expected[name]:
                raise ValueError(f"{folder / name} differs from its checksum; run `ciea index --verify`")

    for _ in prefetch_map(fetch, [name for name in expected if name not in kept], REQUESTS):
        pass


def _copy_description(folder: RemotePath) -> None:
    """Copy what the index records about its kind and engine."""
    try:
        content = read_checked(folder / DESCRIPTION)
    except FileNotFoundError:
        (folder.mirror / DESCRIPTION).unlink(missing_ok=True)
    else:
        write_checked(folder.mirror / DESCRIPTION, content)
