"""Manifests of index folders: the settings of an index, and the shards that it consists of.

A manifest is replaced atomically, so a reader sees the index as it was before a change or after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.choices import PRECISIONS
from ciea_hf.retrieval.checksums import read_checked, write_checked

if TYPE_CHECKING:
    from ciea_hf.retrieval.location import Location

MANIFEST = "manifest.json"
DESCRIPTION = "engine.json"  # kind of index, and the engine that stores a copy
FORMAT = 2
_REQUIRED = {
    "format": int, "model": str, "corpus": str, "normalized": bool, "on_broken_image": str, "precision": str,
    "shard_size": int, "source": dict,
}  # fmt: skip

Entry = dict[str, Any]
Manifest = dict[str, Any]


def read_manifest(folder: Location) -> Manifest:
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


def write_manifest(folder: Location, manifest: Manifest) -> None:
    """Replace the manifest of an index, atomically."""
    write_checked(folder / MANIFEST, manifest)


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
