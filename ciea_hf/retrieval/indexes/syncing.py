"""Copies of an index folder in a FAISS index or an external engine, and the index that a folder is searched with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.choices import INDEXES
from ciea_hf.retrieval.folder import load_corpus
from ciea_hf.retrieval.indexes import ENGINES, corpus_index, index_class
from ciea_hf.retrieval.indexes.engine import DESCRIPTION
from ciea_hf.utils import write_json

if TYPE_CHECKING:
    import os

    import torch

    from ciea_hf.retrieval.encoding import Encoder
    from ciea_hf.retrieval.results import Index

_ROWS_AT_ONCE = 10_000  # few large writes: every write of LanceDB makes a version


def sync_index(
    folder: str | os.PathLike[str], kind: str, uri: str | None = None, collection: str = "documents"
) -> None:
    """Bring a FAISS index or an engine to the state of an index folder; an interrupted call is continued by the next.

    Args:
        folder: Complete index folder, which stores what has been copied.
        kind: `"faiss"`, `"lancedb"`, `"qdrant"` or `"milvus"`; `"auto"`, `"flat"` and `"scan"` need no copy.
        uri: Where the engine stores the documents.
        collection: Name of the collection or table.

    Raises:
        ValueError: If `kind` is unknown, or an engine has no `uri`.
        ImportError: If the library of the engine is not installed.
    """
    if kind not in INDEXES:
        raise ValueError(f"`index` must be one of {', '.join(INDEXES)}; got {kind!r}")
    if kind == "faiss":
        corpus_index(load_corpus(folder), "faiss").save(folder)
    if kind not in ENGINES:
        return
    if not uri:
        raise ValueError(f"`uri` is required for an index of kind {kind!r}")
    corpus = load_corpus(folder)
    make: Any = index_class(kind)
    engine = make(uri, collection)
    description = {"kind": kind, "uri": uri, "collection": collection, "model": corpus.settings["model"]}
    path = Path(folder) / DESCRIPTION
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    is_same = all(before.get(name) == value for name, value in description.items())
    copied = [name for name in before.get("copied", []) if is_same]
    for number, name in enumerate(corpus.shard_names):
        if name in copied:
            continue
        positions = np.arange(corpus.starts[number], corpus.starts[number + 1])
        positions = positions[corpus.live[positions]]
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            rows = positions[start : start + _ROWS_AT_ONCE]
            engine.upsert(corpus.embeddings(rows), [corpus.record(int(row)) for row in rows])
        copied.append(name)
        write_json(path, {**description, "copied": copied})
    live = set(corpus.names(np.flatnonzero(corpus.live)))
    engine.delete([name for name in engine.ids if name not in live])
    write_json(path, {**description, "copied": [name for name in copied if name in corpus.shard_names]})
    if hasattr(engine, "close"):
        engine.close()


def open_index(
    folder: str | os.PathLike[str],
    model: Encoder | None = None,
    kind: str = "auto",
    device: str | torch.device | None = None,
) -> Index:
    """Open the index that an index folder is searched with.

    Args:
        folder: Index folder.
        model: Model that will encode the queries: checked against the one that encoded the documents.
        kind: Kind of index; `"auto"` is the engine that the folder was copied to, else `"flat"` for up to 50,000
            documents and `"scan"` beyond.
        device: Device that computes the scores of several queries.

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If files are missing or damaged, or another model encoded the documents.
    """
    corpus = load_corpus(folder, model)
    path = Path(folder) / DESCRIPTION
    if kind == "auto" and path.is_file():
        kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
    if kind == "faiss":
        from ciea_hf.retrieval.indexes.faiss import FaissIndex

        return FaissIndex.load(folder)
    return index_class(kind).load(folder) if kind in ENGINES else corpus_index(corpus, kind, device)
