"""Conversion of embeddings: precision, containers and unit length."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from .arguments_ciea import integer_argument
from .errors_ciea import place

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
Embeddings = Any  # np.ndarray, torch.Tensor or list[torch.Tensor], depending on the arguments


def check_options(precision: str, batch_size: int, truncate_dim: int | None, width: int) -> None:
    """Check the arguments of `encode` that determine the form of embeddings; `width` is that of the model."""
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if integer_argument("batch_size", batch_size) < 1:
        raise ValueError(f"`batch_size` must be positive; got {batch_size}")
    if truncate_dim is not None and not 1 <= integer_argument("truncate_dim", truncate_dim) <= width:
        raise ValueError(f"`truncate_dim` must be between 1 and {width}; got {truncate_dim}")


def convert_embeddings(
    embeddings: torch.Tensor, single: bool, precision: Precision, convert_to_numpy: bool, convert_to_tensor: bool
) -> Embeddings:
    """Quantise, and convert to the requested container."""
    if precision != "float32" and not len(embeddings):
        width = -(-embeddings.shape[1] // 8) if "binary" in precision else embeddings.shape[1]
        embeddings = torch.empty(0, width, dtype=torch.uint8 if precision.startswith("u") else torch.int8)
    elif precision != "float32":
        embeddings = torch.from_numpy(np.asarray(_quantize(embeddings.cpu().numpy(), precision)))
    result = embeddings[0] if single else embeddings
    if convert_to_tensor:
        return result
    if convert_to_numpy:
        return result.cpu().numpy()
    return result if single else list(result)


def _quantize(embeddings: np.ndarray[Any, Any], precision: Precision) -> Any:
    try:
        quantization = importlib.import_module("sentence_transformers.util.quantization")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`precision={precision!r}` requires sentence-transformers: pip install sentence-transformers"
        ) from error
    with place(f"`precision` {precision!r}"):
        return quantization.quantize_embeddings(embeddings, precision=precision)


def check_finite(embeddings: torch.Tensor) -> None:
    """Check embeddings in input order: (inputs, dimensions).

    Raises:
        ValueError: If an embedding is not finite; the message names the position of its input.
    """
    finite = embeddings.isfinite().all(dim=-1)
    if not finite.all():
        position = int((~finite).int().argmax())
        raise ValueError(
            f"input {position}: the embedding is not finite; the model's weights contain NaN or infinity, or exceed "
            "the range of its dtype"
        )


def normalize_rows(rows: torch.Tensor) -> torch.Tensor:
    """Scale rows to unit length, also those whose squares exceed the range of floats: (rows, dimensions)."""
    squares = rows.square().sum(dim=-1, keepdim=True)
    largest = rows.abs().amax(dim=-1, keepdim=True) if rows.numel() else squares
    extreme = (squares.isinf() | (squares < 1e-30)) & (largest > 0) & largest.isfinite()
    return F.normalize(torch.where(extreme, rows / largest, rows), dim=-1)


def paired_unit_rows(first: Any, second: Any, hidden_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two sets of embeddings, each an array, a tensor or a list of them, as unit rows in float32.

    Args:
        first: (a, dimensions) or (dimensions,).
        second: (b, dimensions) or (dimensions,).
        hidden_size: Width of the model's embeddings.

    Returns:
        (a, dimensions) and (b, dimensions).

    Raises:
        ValueError: If the widths differ, or the embeddings are packed bits.
    """
    rows = [_as_rows(embeddings, hidden_size) for embeddings in (first, second)]
    if rows[0].shape[-1] != rows[1].shape[-1]:
        raise ValueError(f"embeddings must have the same width; got {rows[0].shape[-1]} and {rows[1].shape[-1]}")
    return normalize_rows(rows[0]), normalize_rows(rows[1])


def _as_rows(embeddings: Any, hidden_size: int) -> torch.Tensor:
    if isinstance(embeddings, list | tuple):
        embeddings = torch.stack([torch.as_tensor(row) for row in embeddings])
    rows = torch.as_tensor(embeddings)
    if rows.dtype in (torch.int8, torch.uint8) and 8 * rows.shape[-1] <= hidden_size + 7:
        raise ValueError(
            f"embeddings of {rows.shape[-1]} bytes are packed bits, which have no cosine: count differing bits, or "
            "unpack them with `numpy.unpackbits(embeddings.view('uint8'), axis=-1)`"
        )
    return rows.float() if rows.ndim > 1 else rows[None].float()
