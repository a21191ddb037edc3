"""Valid values of arguments that functions and commands share. Imports nothing, so that the command line stays fast."""

from __future__ import annotations

CONTENT = ("full", "caption", "image")
"""Content of documents: all of it, without images, or without the captions of images."""

ON_BROKEN_IMAGE = ("fail", "skip", "caption")
"""Policies for images that cannot be decoded: raise, leave the document out, or fall back to its caption."""

PRECISIONS = ("float32", "float16", "int8", "binary")
"""Storage precisions of embeddings."""

INDEXES = ("auto", "flat", "scan", "faiss", "lancedb", "qdrant", "milvus")
"""Kinds of indexes; `auto` is `flat` for up to 50,000 documents and `scan` beyond."""

DATASET_FORMATS = (
    "webqa", "webqa-image", "webqa-original", "webqa-original-image", "edis", "mbeir", "clueweb22-mm", "jsonl",
    "lines", "parquet",
)  # fmt: skip
"""Formats of retrieval data sets."""

EXPLANATION_METHODS = ("integrated_gradients", "occlusion", "weights", "gates")
"""Methods of maps over the patches of an image."""
