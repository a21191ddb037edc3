"""Index folders: opening and checking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.corpus import SETTINGS, EncodedCorpus
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.shards import (
    FORMAT,
    MANIFEST,
    SHARDS,
    Entry,
    check_shards,
    damaged_files,
    find_shard,
    locked,
    read_manifest,
    read_shard,
    remove_unlisted,
    segment_digest,
    write_manifest,
    write_shard,
)

if TYPE_CHECKING:
    import os

    from ciea_hf.retrieval.encoding import Encoder

_RETRIES = 10
_DEFAULTS: dict[str, Any] = {
    "model": "", "corpus": "", "normalized": True, "on_broken_image": "fail", "truncate_dim": None,
    "shard_size": 10_000,
}  # fmt: skip


def is_encoded_corpus(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is an index, complete or not."""
    return (Path(folder) / MANIFEST).is_file() and (Path(folder) / SHARDS).is_dir()


def load_corpus(folder: str | os.PathLike[str], model: Encoder | None = None) -> EncodedCorpus:
    """Open an encoded corpus, memory-mapped.

    Args:
        folder: Index folder.
        model: Model that will encode the queries: checked against the one that encoded the documents.

    Returns:
        The corpus as it is now; later changes of the folder do not affect it.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If shards are missing or do not match the manifest and its checksums, or another model encoded them.
    """
    target = Path(folder)
    for attempt in range(_RETRIES):
        manifest = read_manifest(target)
        if model is not None and manifest["model"] != model_fingerprint(model):
            raise ValueError(f"{target} was encoded by another model than the one given")
        if manifest["shards"] is None:
            raise ValueError(f"{target} is incomplete: {_progress(target, manifest)}")
        try:
            check_shards(target, manifest)
            segments = [read_shard(target, entry, manifest["precision"]) for entry in manifest["shards"]]
        except FileNotFoundError as error:
            if attempt + 1 == _RETRIES or read_manifest(target) == manifest:
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
    manifest = read_manifest(Path(folder))
    if manifest["shards"] is None:
        raise ValueError(f"{folder} is incomplete: {_progress(Path(folder), manifest)}")
    return damaged_files(Path(folder), manifest)


def save_corpus(corpus: EncodedCorpus, folder: str | os.PathLike[str]) -> None:
    """Write a corpus as an index folder; see [`EncodedCorpus.save`]."""
    target = Path(folder)
    (target / SHARDS).mkdir(parents=True, exist_ok=True)
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


def _saved_entry(corpus: EncodedCorpus, folder: Path, number: int) -> Entry:
    segment, start = corpus.segments[number], int(corpus.starts[number])
    name = corpus.shard_names[number] or f"{number:05d}-{segment.digest or segment_digest(segment)}"
    entry = find_shard(folder, name) or write_shard(folder, name, segment)
    deleted = np.flatnonzero(~corpus.kept[start : start + len(segment)]).tolist()
    return {**entry, "deleted": deleted}


def _progress(folder: Path, manifest: dict[str, Any]) -> str:
    planned = manifest.get("planned") or []
    absent = [name for name in planned if find_shard(folder, name) is None]
    return f"{len(absent)} of {len(planned)} shards are missing; repeat `ciea index` to continue"
