"""Index folders: opening and checking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.corpus import SETTINGS, EncodedCorpus
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.location import Location, make_folder, open_location
from ciea_hf.retrieval.manifests import FORMAT, MANIFEST, Entry, Manifest, read_manifest, write_manifest
from ciea_hf.retrieval.mirror import RETRIES, local_folder, require_complete
from ciea_hf.retrieval.shards import (
    SHARDS,
    check_shards,
    damaged_files,
    find_shard,
    locked,
    read_shard,
    remove_unlisted,
    segment_digest,
    write_shard,
)

if TYPE_CHECKING:
    import os

    from ciea_hf.retrieval.encoding import Encoder

_DEFAULTS: dict[str, Any] = {
    "model": "", "corpus": "", "normalized": True, "on_broken_image": "fail", "truncate_dim": None,
    "shard_size": 10_000,
}  # fmt: skip


def is_encoded_corpus(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder, or a URL, is an index, complete or not."""
    target = open_location(folder)
    return (target / MANIFEST).is_file() and (not isinstance(target, Path) or (target / SHARDS).is_dir())


def load_corpus(folder: str | os.PathLike[str], model: Encoder | None = None) -> EncodedCorpus:
    """Open an encoded corpus, memory-mapped.

    Args:
        folder: Index folder, or its URL, such as `s3://bucket/data.index`: files that have changed since the last call
            are downloaded to the cache.
        model: Model that will encode the queries: checked against the one that encoded the documents.

    Returns:
        The corpus as it is now; later changes of the folder do not affect it.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If shards are missing or do not match the manifest and its checksums, or another model encoded them.
    """
    remote = open_location(folder)
    fingerprint = None if model is None else model_fingerprint(model)  # of all weights: a second per gigabyte
    if fingerprint is not None:  # before anything is downloaded
        _require_model(remote, read_manifest(remote), fingerprint)
    target = local_folder(remote)
    for attempt in range(RETRIES):
        manifest = read_manifest(target)
        if fingerprint is not None:
            _require_model(remote, manifest, fingerprint)
        require_complete(target, manifest)
        try:
            check_shards(target, manifest)
            segments = [read_shard(target, entry, manifest["precision"]) for entry in manifest["shards"]]
        except FileNotFoundError as error:
            if attempt + 1 == RETRIES or read_manifest(target) == manifest:
                raise ValueError(f"{target} is incomplete: {error}") from error
            continue  # the index was replaced in between
        break
    settings = {name: manifest[name] for name in SETTINGS if name in manifest}
    corpus = EncodedCorpus(segments, settings, [entry["deleted"] for entry in manifest["shards"]])
    corpus.shard_names = [entry["name"] for entry in manifest["shards"]]
    return corpus


def verify_corpus(folder: str | os.PathLike[str]) -> list[str]:
    """Compare all files of an index with their checksums.

    Returns:
        One line per file that is missing or differs; empty if the index is intact.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If the manifest cannot be read or the index is incomplete.
    """
    target, manifest = _open_complete(folder)
    return damaged_files(target, manifest)


def count_documents(folder: str | os.PathLike[str]) -> int:
    """Return the number of documents of a complete index, from its manifest alone.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If the manifest cannot be read or the index is incomplete.
    """
    _, manifest = _open_complete(folder)
    return sum(entry["documents"] - len({*entry["deleted"]}) for entry in manifest["shards"])


def _open_complete(folder: str | os.PathLike[str]) -> tuple[Location, Manifest]:
    """Return the location and the manifest of an index all of whose shards are there."""
    target = open_location(folder)
    manifest = read_manifest(target)
    require_complete(target, manifest)
    return target, manifest


def save_corpus(corpus: EncodedCorpus, folder: str | os.PathLike[str]) -> None:
    """Write a corpus as an index folder; see [`EncodedCorpus.save`]."""
    target = open_location(folder)
    make_folder(target / SHARDS)
    with locked(target, "manifest"):
        manifest = {"format": FORMAT, **_DEFAULTS, **corpus.settings}
        if (target / MANIFEST).exists() and read_manifest(target)["model"] != manifest["model"]:
            raise ValueError(f"{target} is an index of another model: choose another folder")
        manifest["dimension"] = corpus.dimension
        manifest["shards"] = [
            _saved_entry(corpus, target, number) for number, segment in enumerate(corpus.segments) if len(segment)
        ]
        write_manifest(target, manifest)
        remove_unlisted(target, manifest)


def _saved_entry(corpus: EncodedCorpus, folder: Location, number: int) -> Entry:
    segment, start = corpus.segments[number], int(corpus.starts[number])
    name = corpus.shard_names[number] or f"{number:05d}-{segment.digest or segment_digest(segment)}"
    entry = find_shard(folder, name) or write_shard(folder, name, segment)
    deleted = np.flatnonzero(~corpus.kept[start : start + len(segment)]).tolist()
    return {**entry, "deleted": deleted}


def _require_model(folder: Location, manifest: Manifest, fingerprint: str) -> None:
    if manifest["model"] != fingerprint:
        raise ValueError(f"{folder} was encoded by another model than the one given")
