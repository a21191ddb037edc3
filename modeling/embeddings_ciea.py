"""Conversion of embeddings: precision, containers and unit length."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
Embeddings = Any  # np.ndarray, torch.Tensor or list[torch.Tensor], depending on the arguments


def check_options(precision: str, batch_size: int, truncate_dim: int | None, width: int) -> None:
    """Check the arguments of `encode` that determine the form of embeddings; `width` is that of the model."""
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be positive; got {batch_size}")
    if truncate_dim is not None and not 1 <= truncate_dim <= width:
        raise ValueError(f"`truncate_dim` must be between 1 and {width}; got {truncate_dim}")


def convert_embeddings(
    embeddings: torch.Tensor, single: bool, precision: Precision, convert_to_numpy: bool, convert_to_tensor: bool
) -> Embeddings:
    """Quantise, and convert to the requested container."""
    if precision != "float32" and not len(embeddings):
        width = embeddings.shape[1] // 8 if "binary" in precision else embeddings.shape[1]
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
    return quantization.quantize_embeddings(embeddings, precision=precision)


def unit_rows(embeddings: Any) -> torch.Tensor:
    """Return embeddings, an array, a tensor or a list of them, as unit rows in float32: (rows, dimensions)."""
    if isinstance(embeddings, list | tuple):
        embeddings = torch.stack([torch.as_tensor(row) for row in embeddings])
    rows = torch.as_tensor(embeddings).float()
    return F.normalize(rows if rows.ndim > 1 else rows[None], dim=-1)
