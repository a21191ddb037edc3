"""Corpus encoding, indexes and search."""

from __future__ import annotations

from ciea_hf.retrieval.building import encode_corpus, encode_shards
from ciea_hf.retrieval.corpus import EncodedCorpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_queries
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.folder import load_corpus, verify_corpus
from ciea_hf.retrieval.indexes import load_index
from ciea_hf.retrieval.indexes.flat import FlatIndex
from ciea_hf.retrieval.indexes.scan import ScanIndex
from ciea_hf.retrieval.plans import prune
from ciea_hf.retrieval.records import DocumentRecord
from ciea_hf.retrieval.results import Index, SearchResult
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
    "ScanIndex",
    "SearchResult",
    "encode_corpus",
    "encode_queries",
    "encode_shards",
    "load_corpus",
    "load_index",
    "model_fingerprint",
    "prune",
    "verify_corpus",
]
