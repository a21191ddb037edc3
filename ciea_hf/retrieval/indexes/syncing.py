"""Copies of an index folder in a FAISS index or an external engine, and the index that a folder is searched with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.choices import INDEXES
from ciea_hf.retrieval.checksums import read_checked, write_checked
from ciea_hf.retrieval.folder import load_corpus
from ciea_hf.retrieval.indexes import ENGINES, corpus_index, index_class
from ciea_hf.retrieval.indexes.engine import engine_errors
from ciea_hf.retrieval.location import Location, local_path, open_location
from ciea_hf.retrieval.manifests import DESCRIPTION

if TYPE_CHECKING:
    import os

    import torch

    from ciea_hf.retrieval.corpus import EncodedCorpus
    from ciea_hf.retrieval.encoding import Encoder
    from ciea_hf.retrieval.results import Index

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 10_000  # few large writes: every write of LanceDB makes a version


def sync_index(
    folder: str | os.PathLike[str], kind: str = "auto", uri: str | None = None, collection: str = "documents"
) -> None:
    """Record the kind of an index folder, and bring its FAISS index or engine to the state of the folder.

    An interrupted call is continued by the next one.

    Args:
        folder: Complete index folder, which stores what has been copied.
        kind: Kind of index; `"auto"` is the recorded one, if there is one.
        uri: Where an engine stores the documents; the recorded one if `None`.
        collection: Name of the collection or table.

    Raises:
        ValueError: If `kind` is unknown, or an engine has no `uri`.
        ImportError: If the library of the engine is not installed.
    """
    if kind not in INDEXES:
        raise ValueError(f"`index` must be one of {', '.join(INDEXES)}; got {kind!r}")
    before = _description(folder)
    if kind == "auto":
        if not before:
            return
        kind, uri, collection = before["kind"], uri or before.get("uri"), before.get("collection", collection)
    if kind in ENGINES and not uri and before.get("kind") == kind:
        uri, collection = before["uri"], before["collection"]
    if kind in ENGINES and not uri:
        raise ValueError(f"`uri` is required for an index of kind {kind!r}")
    corpus = load_corpus(folder)
    description: dict[str, Any] = {"kind": kind}
    if kind in ENGINES:
        description |= {"uri": uri, "collection": collection, "model": corpus.settings["model"]}
        is_same = all(before.get(name) == value for name, value in description.items())
        with engine_errors(kind, str(uri)):
            copied = _copy(corpus, open_location(folder), description, before.get("copied", []) if is_same else [])
        description["copied"] = [name for name in copied if name in corpus.shard_names]
    elif kind == "faiss":
        corpus_index(corpus, "faiss").save(folder)
    write_checked(open_location(folder) / DESCRIPTION, {**description, "state": corpus.state})


def open_index(
    folder: str | os.PathLike[str],
    model: Encoder | None = None,
    kind: str = "auto",
    device: str | torch.device | None = None,
) -> Index:
    """Open the index that an index folder is searched with.

    Args:
        folder: Index folder, or its URL.
        model: Model that will encode the queries: checked against the one that encoded the documents.
        kind: Kind of index; `"auto"` is the recorded one, else `"flat"` for up to 50,000 documents and `"scan"`
            beyond. An engine that has not been brought to the state of the folder is not searched.
        device: Device that computes the scores of several queries.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If files are missing or damaged, or another model encoded the documents.
    """
    corpus = load_corpus(folder, model)
    folder = local_path(folder)
    found = _description(folder)
    if kind == "auto" and found:
        kind = found["kind"]
        if kind in ENGINES and found.get("state") != corpus.state:
            logger.warning("%s has an older state than %s, which is searched; repeat `ciea index`", kind, folder)
            kind = "auto"
    if kind == "faiss":
        from ciea_hf.retrieval.indexes.faiss import FaissIndex

        return FaissIndex.load(folder)
    if kind not in ENGINES:
        return corpus_index(corpus, kind, device)
    with engine_errors(kind, str(found.get("uri", folder))):
        return index_class(kind).load(folder)


def _copy(corpus: EncodedCorpus, folder: Location, description: dict[str, Any], copied: list[str]) -> list[str]:
    """Copy the shards that an engine does not have, and delete the documents that are not in the corpus."""
    make: Any = index_class(description["kind"])
    engine = make(description["uri"], description["collection"])
    names = [str(name) for name in copied]
    for number, name in enumerate(corpus.shard_names):
        if name is None or name in names:
            continue
        positions = np.arange(corpus.starts[number], corpus.starts[number + 1])
        positions = positions[corpus.live[positions]]
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            rows = positions[start : start + _ROWS_AT_ONCE]
            engine.upsert(corpus.embeddings(rows), [corpus.record(int(row)) for row in rows])
        names.append(name)
        write_checked(folder / DESCRIPTION, {**description, "copied": names})
    live = set(corpus.names(np.flatnonzero(corpus.live)))
    engine.delete([name for name in engine.ids if name not in live])
    if hasattr(engine, "close"):
        engine.close()
    return names


def _description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is recorded about the index of a folder; empty if nothing is.

    Raises:
        ValueError: If the file is damaged.
    """
    path = open_location(folder) / DESCRIPTION
    if not path.is_file():
        return {}
    content = read_checked(path)
    if content.get("kind") not in INDEXES:
        raise ValueError(f"{path} has an unexpected format")
    return content
