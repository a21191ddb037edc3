"""What the routes share: access to the engine, roles, vectors and documentation."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ciea_hf.serve.errors import ErrorResponse, RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ciea_hf.serve.engine import Engine

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The request is invalid; the error names field and position."},
    401: {"model": ErrorResponse, "description": "The API key is missing or wrong."},
    404: {"model": ErrorResponse, "description": "The path does not exist, or there is no index."},
    413: {"model": ErrorResponse, "description": "The body or its images are too large."},
    415: {"model": ErrorResponse, "description": "The body is not of type application/json."},
    429: {"model": ErrorResponse, "description": "The service is overloaded; see the header Retry-After."},
    500: {"model": ErrorResponse, "description": "The model failed on an input."},
    503: {"model": ErrorResponse, "description": "The request took too long, or the service is shutting down."},
}

Dimension = Annotated[int | None, Field(ge=1, description="number of leading dimensions to keep")]


class Body(BaseModel):
    """Body of a request. Unknown fields are ignored, because clients send fields that only their own service knows."""

    model_config = ConfigDict(strict=True)


class StrictBody(BaseModel):
    """Body of a request; unknown fields are invalid."""

    model_config = ConfigDict(strict=True, extra="forbid")


def engine_of(request: Request) -> Engine:
    """Return the engine of the application."""
    engine: Engine = request.app.state.engine
    return engine


def json_response(content: Any) -> Response:
    """Return a JSON response; arrays become lists."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def truncated(rows: NDArray[np.float32], dimension: int | None, param: str, normalize: bool) -> NDArray[np.float32]:
    """Keep the leading dimensions of embeddings.

    Args:
        rows: (inputs, D).
        dimension: Number of dimensions, or `None` for all.
        param: Field of the request that contains `dimension`.
        normalize: Whether to scale the result to unit length.

    Raises:
        RequestError: If `dimension` is larger than D.
    """
    if dimension is None or dimension == rows.shape[1]:
        return rows
    if dimension > rows.shape[1]:
        raise RequestError(400, f"{param}: the model has {rows.shape[1]} dimensions; got {dimension}", param)
    kept = rows[:, :dimension]
    if not normalize:
        return np.ascontiguousarray(kept)
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    unit: NDArray[np.float32] = kept / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def base64_vector(vector: NDArray[Any]) -> str:
    """Return the bytes of a vector, little-endian, in base64."""
    return base64.b64encode(vector.astype(vector.dtype.newbyteorder("<"), copy=False).tobytes()).decode()


def quantized(rows: NDArray[np.float32], dtype: str, param: str) -> NDArray[Any]:
    """Convert embeddings to a type.

    Args:
        rows: (inputs, D).
        dtype: `"float"`; or `"ubinary"` or `"binary"`: the signs in packed bits, as unsigned or signed bytes.
        param: Field of the request that contains `dtype`.

    Raises:
        RequestError: If D is not a multiple of 8 and bits are requested.
    """
    if dtype == "float":
        return rows
    if rows.shape[1] % 8:
        message = f"{param}: {dtype} needs a multiple of 8 dimensions; got {rows.shape[1]}"
        raise RequestError(400, message, param)
    bits = np.packbits(rows > 0, axis=1)
    return bits if dtype == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
