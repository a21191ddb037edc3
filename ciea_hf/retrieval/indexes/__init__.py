"""Indexes: search backends behind the protocol `ciea_hf.retrieval.results.Index`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ciea_hf.choices import INDEXES

if TYPE_CHECKING:
    import os

    import torch

    from ciea_hf.retrieval.corpus import EncodedCorpus
    from ciea_hf.retrieval.indexes.base import CorpusIndex
    from ciea_hf.retrieval.results import Index

FLAT_UP_TO = 50_000
"""Number of documents up to which `auto` is exact."""

CLASSES = {
    "flat": "ciea_hf.retrieval.indexes.flat:FlatIndex",
    "scan": "ciea_hf.retrieval.indexes.scan:ScanIndex",
    "faiss": "ciea_hf.retrieval.indexes.faiss:FaissIndex",
    "lancedb": "ciea_hf.retrieval.indexes.lancedb:LanceIndex",
    "qdrant": "ciea_hf.retrieval.indexes.qdrant:QdrantIndex",
    "milvus": "ciea_hf.retrieval.indexes.milvus:MilvusIndex",
}
"""Module and class of each kind of index."""
ENGINES = ("lancedb", "qdrant", "milvus")
"""Kinds that are stored by another program, at a URI."""


def index_class(kind: str) -> type[Index]:
    """Return the class of a kind of index.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in CLASSES:
        raise ValueError(f"`index` must be one of {', '.join(INDEXES)}; got {kind!r}")
    module, _, name = CLASSES[kind].partition(":")
    found: type[Index] = getattr(importlib.import_module(module), name)
    return found


def corpus_index(corpus: EncodedCorpus, kind: str = "auto", device: str | torch.device | None = None) -> CorpusIndex:
    """Return an index over a corpus; see [`EncodedCorpus.index`].

    Raises:
        ValueError: If the kind is unknown, or is an engine of its own.
    """
    if kind == "auto":
        kind = "flat" if len(corpus) <= FLAT_UP_TO else "scan"
    if kind in ENGINES:
        raise ValueError(f"`index` must be auto, flat, scan or faiss for a corpus; got {kind!r}")
    made: Any = index_class(kind)
    found: CorpusIndex = made(corpus, device=device)
    return found


def load_index(folder: str | os.PathLike[str], kind: str = "auto") -> Index:
    """Open an index that `save` has written; `auto` is as in [`corpus_index`].

    Raises:
        FileNotFoundError: If the folder is not an index.
        ValueError: If the kind is unknown, or files are missing or damaged.
    """
    if kind == "auto":
        from ciea_hf.retrieval.folder import load_corpus

        return corpus_index(load_corpus(folder))
    return index_class(kind).load(folder)
