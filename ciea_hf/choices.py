"""Valid values of arguments that functions and commands share. Imports nothing, so that the command line stays fast."""

from __future__ import annotations

CONTENT = ("full", "caption", "image")
"""Content of documents: all of it, without images, or without the captions of images."""

ON_BROKEN_IMAGE = ("fail", "skip", "caption")
"""Policies for images that cannot be decoded: raise, leave the document out, or fall back to its caption."""

DTYPES = ("float32", "float16")
"""Storage types of embeddings."""

DATASET_FORMATS = (
    "webqa", "webqa-image", "webqa-original", "webqa-original-image", "edis", "mbeir", "clueweb22-mm", "jsonl",
    "lines", "parquet",
)  # fmt: skip
"""Formats of retrieval data sets."""
