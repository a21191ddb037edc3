"""Copies: documents that hold the same under several ids."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ciea_hf.data.images import image_bytes

if TYPE_CHECKING:
    from ciea_hf.data.dataset import RetrievalDataset


def document_copies(dataset: RetrievalDataset) -> dict[str, frozenset[str]]:
    """Find the documents that other documents equal in text and image.

    Only the images of documents with equal captions are read. One that cannot be read has no copies.

    Args:
        dataset: Data set whose corpus is compared.

    Returns:
        Id of a document to the ids of all documents that equal it, itself included; without those that are unique.
    """
    by_text: dict[tuple[str, str | None], list[int]] = {}
    kinds = list(dataset.document_kinds.values())
    for row, pair in enumerate(zip(kinds, dataset.corpus["text"], strict=True)):
        by_text.setdefault(pair, []).append(row)
    names = dataset.corpus_ids
    found: dict[str, frozenset[str]] = {}
    for (kind, _), rows in by_text.items():
        if len(rows) > 1:
            for group in [rows] if kind == "text" else _by_image(dataset, rows):
                equal = frozenset(names[row] for row in group)
                found.update(dict.fromkeys(equal, equal))
    return found


def with_copies(documents: set[str], copies: dict[str, frozenset[str]]) -> set[str]:
    """Return documents and their copies."""
    return documents.union(*(copies[name] for name in documents if name in copies))


def _by_image(dataset: RetrievalDataset, rows: list[int]) -> list[list[int]]:
    """Group rows whose images are byte-identical, two or more."""
    groups: dict[str, list[int]] = {}
    images = dataset.encoded_images()
    for row in rows:
        try:
            content = image_bytes(images[row]["image"])
        except (OSError, ValueError):
            continue
        groups.setdefault(hashlib.sha256(content).hexdigest(), []).append(row)
    return [group for group in groups.values() if len(group) > 1]
