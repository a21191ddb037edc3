"""Storage precisions of embeddings: float32, float16, int8 with a scale per row, and binary (signs)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ciea_hf.choices import PRECISIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT8_LIMIT = 127


class StoredVectors(NamedTuple):
    """Embeddings as they are stored.

    Attributes:
        rows: (documents, D) float32, float16 or int8; (documents, ceil(D / 8)) uint8 for binary.
        scales: (documents,) float32, by which int8 rows are multiplied; `None` for other precisions.
    """

    rows: NDArray[np.generic]
    scales: NDArray[np.float32] | None = None


def check_precision(precision: str) -> None:
    """Check a precision.

    Raises:
        ValueError: If it is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {precision!r}")


def store_vectors(embeddings: NDArray[np.float32], precision: str) -> StoredVectors:
    """Convert embeddings (documents, D) to a storage precision."""
    check_precision(precision)
    if precision == "binary":
        return StoredVectors(sign_codes(embeddings))
    if precision == "int8":
        largest = np.abs(embeddings).max(axis=1, initial=0.0)
        scales = np.where(largest > 0, largest / _INT8_LIMIT, 1).astype(np.float32)
        return StoredVectors(np.rint(embeddings / scales[:, None]).astype(np.int8), scales)
    return StoredVectors(embeddings.astype(precision, copy=False))


def restore_vectors(stored: StoredVectors, precision: str, dimension: int) -> NDArray[np.float32]:
    """Convert stored embeddings back to float32 (documents, D); signs become -1 / sqrt(D) and 1 / sqrt(D)."""
    if precision == "binary":
        bits = np.unpackbits(stored.rows.view(np.uint8), axis=1, count=dimension)
        return (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(max(1, dimension)))
    if stored.scales is not None:
        return stored.rows.astype(np.float32) * stored.scales[:, None]
    rows: NDArray[np.float32] = stored.rows.astype(np.float32, copy=False)
    return rows


def sign_codes(embeddings: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the signs of embeddings (documents, D) as bits: (documents, ceil(D / 8))."""
    return np.packbits(embeddings > 0, axis=1)


def truncate(embeddings: NDArray[np.float32], dimension: int | None, normalize: bool) -> NDArray[np.float32]:
    """Keep the first dimensions of embeddings, and scale them to unit length again if they are normalised.

    Raises:
        ValueError: If there are fewer dimensions.
    """
    if dimension is None or dimension == embeddings.shape[1]:
        return embeddings
    if dimension > embeddings.shape[1]:
        raise ValueError(f"`truncate_dim` must be at most {embeddings.shape[1]}, the width of the embeddings; "
                         f"got {dimension}")  # fmt: skip
    rows = embeddings[:, :dimension]
    if normalize:
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return np.ascontiguousarray(rows, dtype=np.float32)
