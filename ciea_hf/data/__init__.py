"""Retrieval data sets: readers of all formats, checks, conversion and builders."""

from __future__ import annotations

from ciea_hf.data.dataset import Qrels, RetrievalDataset, column_values, corpus_from_columns, queries_from_columns
from ciea_hf.data.export import save_retrieval_dataset
from ciea_hf.data.loading import FORMATS, Format, load_retrieval_dataset

__all__ = [
    "FORMATS",
    "Format",
    "Qrels",
    "RetrievalDataset",
    "column_values",
    "corpus_from_columns",
    "load_retrieval_dataset",
    "queries_from_columns",
    "save_retrieval_dataset",
]
