"""Plans: what is missing from an index folder, and the manifest that is written once it is there.

A plan follows from the data set and the index alone, so every process that makes one has the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, normalizes
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.location import Location, children, local_path, make_folder, open_location
from ciea_hf.retrieval.manifests import FORMAT, MANIFEST, Manifest, read_manifest, write_manifest
from ciea_hf.retrieval.mirror import local_files, local_folder, require_complete
from ciea_hf.retrieval.segment import HASH
from ciea_hf.retrieval.shards import (
    LOCKS,
    SHARDS,
    check_shards,
    find_shard,
    find_shards,
    locked,
    read_shard,
    read_table,
    remove_unlisted,
    shard_files,
    write_shard,
)
from ciea_hf.utils import short_hash

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval.documents import DocumentView

_FREE = ("source", "on_broken_image")  # settings that do not change an embedding that exists


@dataclass(frozen=True)
class PlannedShard:
    """A shard to encode: its name, and the rows of the corpus."""

    name: str
    rows: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """What is missing from an index.

    Attributes:
        folder: Index folder.
        base: Manifest that the plan starts from.
        shards: Shards to encode.
        replaced: Rows of committed shards whose documents have changed, by name of the shard.
        settings: Settings of the manifest that the commit writes.
    """

    folder: Location
    base: Manifest
    shards: list[PlannedShard]
    replaced: dict[str, list[int]]
    settings: dict[str, Any]

    @property
    def missing(self) -> list[PlannedShard]:
        """Shards that are not complete yet."""
        complete = find_shards(self.folder, [shard.name for shard in self.shards])
        return [shard for shard in self.shards if shard.name not in complete]


def make_plan(
    model: Encoder,
    dataset: RetrievalDataset,
    folder: str | os.PathLike[str],
    view: DocumentView,
    options: EncodingOptions,
    source: Mapping[str, str] | None = None,
    append: bool = False,
) -> Plan:
    """Find what is missing from an index folder, and create the folder if it does not exist.

    Raises:
        ValueError: If the folder holds embeddings of another model, corpus or precision, or other files.
    """
    target = open_location(folder)
    settings = index_settings(model, dataset, view, options, source)
    _refuse_foreign_folder(target)
    make_folder(target / SHARDS)
    with locked(target, "manifest"):
        if not (target / MANIFEST).exists():
            planned = _whole(view, options, settings)
            names = [shard.name for shard in planned]
            write_manifest(target, {"format": FORMAT, **settings, "planned": names, "shards": None})
        base = _checked(target, settings, append)
    if base["shards"] is None:
        return Plan(target, base, _whole(view, options, base), {}, base)
    if not append:
        return Plan(target, base, _lost(target, base, _whole(view, options, base)), {}, base)
    shards, replaced = _changes(target, base, view, settings)
    return Plan(
        target, base, shards, replaced, {**settings, **{name: base[name] for name in ("on_broken_image", "shard_size")}}
    )


def commit(plan: Plan) -> None:
    """Write the manifest of a plan whose shards are complete; any number of processes may do so.

    Raises:
        ValueError: If the index was changed since the plan was made.
    """
    with locked(plan.folder, "manifest"):
        current = read_manifest(plan.folder)
        names = [shard.name for shard in plan.shards]
        committed = {entry["name"]: entry for entry in plan.base["shards"] or []}
        entries, everything = [], sorted({*committed, *names})
        complete = find_shards(plan.folder, everything)
        for name in everything:
            found = complete.get(name)
            if found is None and name in names:
                raise ValueError(f"shard {name} disappeared from {plan.folder}: repeat the command")
            if found is not None:  # the documents of a lost shard are in the new ones
                deleted = {*committed.get(name, {"deleted": []})["deleted"], *plan.replaced.get(name, [])}
                entries.append({**found, "deleted": sorted(deleted)})
        dimension = next((entry["dimension"] for entry in entries if entry["documents"]), 0)
        manifest = {"format": FORMAT, **_only_settings(plan.settings), "dimension": dimension, "shards": entries}
        if current == manifest:
            return
        if current["shards"] != plan.base["shards"]:
            raise ValueError(f"{plan.folder} was changed by another process meanwhile: repeat the command")
        write_manifest(plan.folder, manifest)
        remove_unlisted(plan.folder, manifest)
    for path in (local_path(plan.folder) / LOCKS).glob("*-*.lock"):
        path.unlink(missing_ok=True)


def prune(folder: str | os.PathLike[str], dataset: RetrievalDataset) -> int:
    """Remove the documents that are not in a data set, and those that were replaced, from an index.

    Shards that contain such documents are written again without them; a search that is running keeps the old ones.

    Args:
        folder: Complete index folder.
        dataset: Data set.

    Returns:
        Number of documents that were removed because they are not in the data set.

    Raises:
        ValueError: If the index is incomplete.
    """
    target, known = open_location(folder), set(dataset.corpus_ids)
    with locked(target, "manifest"):
        manifest = read_manifest(target)
        require_complete(target, manifest)
        local = local_folder(target)
        check_shards(local, manifest)
        entries, removed = [], 0
        for entry in manifest["shards"]:
            segment = read_shard(local, entry, manifest["precision"])
            deleted = set(entry["deleted"])
            rows = [row for row, name in enumerate(segment.column("id")) if row not in deleted and name in known]
            removed += len(segment) - len(deleted) - len(rows)
            if len(rows) == len(segment):
                entries.append(entry)
            elif rows:
                name = f"{entry['name'].split('-')[0]}-{short_hash(json.dumps([entry['name'], rows]), 12)}"
                kept = segment.select(np.array(rows, dtype=np.int64))
                entries.append({**(find_shard(target, name) or write_shard(target, name, kept)), "deleted": []})
        write_manifest(target, {**manifest, "shards": entries})
        remove_unlisted(target, {"shards": entries})
    return removed


def index_settings(
    model: Encoder,
    dataset: RetrievalDataset,
    view: DocumentView,
    options: EncodingOptions,
    source: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return the settings of a manifest: what the embeddings depend on."""
    return {
        "model": model_fingerprint(model),
        "corpus": view.fingerprint,
        "normalized": normalizes(model) if options.normalize is None else options.normalize,
        "on_broken_image": view.on_broken_image,
        "precision": options.precision,
        "truncate_dim": options.truncate_dim,
        "shard_size": options.shard_size,
        "source": {"name": dataset.name, "split": dataset.split} | dict(source or {}),
    }


def _refuse_foreign_folder(folder: Location) -> None:
    """Refuse a folder that holds other files than those of an index; hidden ones do not count."""
    if (folder / MANIFEST).exists():
        return
    foreign = sorted(path.name for path in children(folder) if path.name != SHARDS and not path.name.startswith("."))
    if foreign:
        raise ValueError(f"{folder} is not an index, but contains {foreign[0]!r}: choose a new folder")


def _only_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in ("format", "planned", "dimension", "shards")}


def _checked(folder: Location, settings: dict[str, Any], append: bool) -> Manifest:
    """Return the manifest of a folder after comparing its settings with those of this call.

    Embeddings made under the policy `"fail"` contain no broken image, so any other policy may continue them.
    """
    found = read_manifest(folder)
    free = {*_FREE, "corpus", "shard_size"} if append and found["shards"] is not None else set(_FREE)
    differing = [name for name in settings if name not in free and settings[name] != found.get(name)]
    policies = found["on_broken_image"], settings["on_broken_image"]
    if policies[0] not in ("fail", policies[1]):
        differing.append("on_broken_image")
    if "corpus" in differing and {*differing} <= {"corpus", "shard_size"} and found["shards"] is not None:
        raise ValueError(
            f"{folder} was made with another corpus: choose another folder, or add `--append` to encode what is new"
        )
    if differing:
        raise ValueError(
            f"{folder} was made with another {', '.join(differing)}: choose another folder, or delete this one"
        )
    if policies[0] != policies[1]:
        found["on_broken_image"] = policies[1]
        write_manifest(folder, found)
    return found


def _whole(view: DocumentView, options: EncodingOptions, settings: Mapping[str, Any]) -> list[PlannedShard]:
    """Plan the shards of a whole corpus, which are ranges of rows."""
    rows = range(len(view))
    fixed = {name: value for name, value in _only_settings(settings).items() if name not in _FREE}
    planned = []
    for number, start in enumerate(range(0, len(rows), options.shard_size)):
        name = f"{number:05d}-{short_hash(json.dumps([fixed, start], sort_keys=True), 12)}"
        planned.append(PlannedShard(name, rows[start : start + options.shard_size]))
    return planned


def _lost(folder: Location, base: Manifest, whole: Sequence[PlannedShard]) -> list[PlannedShard]:
    """Plan the shards of a complete index whose files are gone.

    Raises:
        ValueError: If one of them was appended, so that its documents are known to a plan of changes alone.
    """
    listed = [entry["name"] for entry in base["shards"]]
    names = {*listed} - find_shards(folder, listed).keys()
    lost = [shard for shard in whole if shard.name in names]
    if len(lost) < len(names):
        raise ValueError(f"{folder} has lost shards that were appended: add `--append` to encode their documents again")
    return lost


def _changes(
    folder: Location, base: Manifest, view: DocumentView, settings: Mapping[str, Any]
) -> tuple[list[PlannedShard], dict[str, list[int]]]:
    """Plan the shards of the documents whose content is not in an index, and find the rows that they replace."""
    known: dict[str, tuple[str, str, int]] = {}
    complete = find_shards(folder, [entry["name"] for entry in base["shards"]])
    entries = [entry for entry in base["shards"] if entry["name"] in complete]  # others are lost, and encoded again
    local = local_files(folder, shard_files(entries, [".arrow"]))
    for entry in entries:
        table = read_table(local, entry)
        deleted = set(entry["deleted"])
        for row, (name, content) in enumerate(zip(*(table[name].to_pylist() for name in ("id", HASH)), strict=True)):
            if row not in deleted:
                known[name] = (content, entry["name"], row)
    changed: list[int] = []
    hashes = view.content_hashes()
    replaced: dict[str, list[int]] = {}
    for row, (name, content) in enumerate(zip(view.ids, hashes, strict=True)):
        before = known.get(name)
        if before is None or before[0] != content:
            changed.append(row)
        if before is not None and before[0] != content:
            replaced.setdefault(before[1], []).append(before[2])
    numbers = [int(entry["name"].split("-")[0]) for entry in base["shards"]]
    size, first = base["shard_size"], max(numbers, default=-1) + 1
    planned = []
    for number, start in enumerate(range(0, len(changed), size), start=first):
        rows = changed[start : start + size]
        content_key = [settings["model"], settings["precision"], settings["truncate_dim"],
                       [(view.ids[row], hashes[row]) for row in rows]]  # fmt: skip
        planned.append(PlannedShard(f"{number:05d}-{short_hash(json.dumps(content_key), 12)}", rows))
    return planned, replaced
