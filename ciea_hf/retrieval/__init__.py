"""Corpus encoding, indexes and search."""

from __future__ import annotations

from ciea_hf.retrieval.corpus import EncodedCorpus, encode_corpus, encode_shards, load_corpus
from ciea_hf.retrieval.documents import DocumentRecord, DocumentView
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.index import FlatIndex, Index, SearchResult
from ciea_hf.retrieval.search import Hit, Retriever

__all__ = [
    "DocumentRecord",
    "DocumentView",
    "EncodedCorpus",
    "Encoder",
    "EncodingOptions",
    "FlatIndex",
    "Hit",
    "Index",
    "Retriever",
    "SearchResult",
    "encode_corpus",
    "encode_shards",
    "encode_queries",
    "load_corpus",
    "model_fingerprint",
]
