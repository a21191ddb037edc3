"""`POST /v1/multimodalembeddings`, the shape of Voyage: one vector for the texts and the image of an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ciea_hf.serve.errors import InvalidInputError
from ciea_hf.serve.inputs import RawInput, check_number, checked
from ciea_hf.serve.shapes.common import (
    ERRORS,
    Body,
    Dimension,
    base64_vector,
    engine_of,
    json_response,
    quantized,
    truncated,
)
from ciea_hf.serve.shapes.openai import EmbeddingObject  # noqa: TC001 (pydantic reads it)

if TYPE_CHECKING:
    from collections.abc import Sequence

router = APIRouter(tags=["Voyage"], responses=ERRORS)


class Segment(Body):
    """A part of an input.

    Attributes:
        type: Which of the other fields the part has.
        text: Text.
        image_base64: Image as a data URI.
        image_url: Image as a data URI; other URLs are not fetched.
    """

    type: Literal["text", "image_base64", "image_url"]
    text: str | None = None
    image_base64: str | None = None
    image_url: str | None = None


class MultimodalInput(Body):
    """An input: texts and at most one image."""

    content: list[Segment] = Field(min_length=1)


class MultimodalRequest(Body):
    """Inputs of text, image or both to embed.

    Attributes:
        inputs: The inputs.
        model: Ignored: the service has one model.
        input_type: Whether the inputs are queries or documents, which have their own prompts; none by default.
        truncation: Whether long texts are truncated; otherwise they are invalid.
        output_encoding: `"base64"` for vectors as base64; numbers by default.
        encoding_format: The same, as Voyage's client calls it.
        output_dimension: Number of leading dimensions to keep.
        output_dtype: Type of the vectors.
    """

    inputs: list[MultimodalInput] = Field(min_length=1)
    model: str | None = None
    input_type: Literal["query", "document"] | None = None
    truncation: bool | None = None
    output_encoding: Literal["base64"] | None = None
    encoding_format: Literal["base64"] | None = None
    output_dimension: Dimension = None
    output_dtype: Literal["float", "binary", "ubinary"] | None = None


class MultimodalUsage(BaseModel):
    """Size of the inputs."""

    text_tokens: int
    image_pixels: int
    video_pixels: int
    total_tokens: int


class MultimodalResponse(BaseModel):
    """The embeddings, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: MultimodalUsage


@router.post("/v1/multimodalembeddings", response_model=MultimodalResponse)
async def multimodal_embeddings(body: MultimodalRequest, request: Request) -> Response:
    """Embed inputs of texts and an image, as Voyage's service does."""
    engine = engine_of(request)
    check_number(body.inputs, "inputs", engine.options)
    items = [
        joined([(part.type, getattr(part, part.type)) for part in item.content], position)
        for position, item in enumerate(body.inputs)
    ]
    embedded = await engine.embed(items, body.input_type, body.truncation is not False)
    rows = truncated(embedded.rows, body.output_dimension, "output_dimension", engine.normalize)
    vectors = quantized(rows, body.output_dtype or "float", "output_dtype")
    as_text = "base64" in (body.output_encoding, body.encoding_format)
    return json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": base64_vector(vector) if as_text else vector}
                for index, vector in enumerate(vectors)
            ],
            "model": engine.options.model_name,
            "usage": {
                "text_tokens": embedded.tokens,
                "image_pixels": embedded.pixels,
                "video_pixels": 0,
                "total_tokens": embedded.tokens + embedded.image_tokens,
            },
        }
    )


def joined(parts: Sequence[tuple[str, str | None]], position: int) -> RawInput:
    """Join the parts of an input: texts are joined by spaces and caption the image.

    Args:
        parts: Type and value of each part.
        position: Position of the input.

    Raises:
        InvalidInputError: If a part has no value, or there are several images.
    """
    texts: list[str] = []
    images: list[str] = []
    for index, (kind, value) in enumerate(parts):
        if value is None:
            name = f"inputs[{position}].content[{index}]"
            raise InvalidInputError(f"a part of type {kind!r} needs the field {kind!r}", position, name)
        (texts if kind == "text" else images).append(value)
    param = f"inputs[{position}]"
    if len(images) > 1:
        raise InvalidInputError(f"one image per input; got {len(images)}", position, param)
    return checked(RawInput(" ".join(texts) if texts else None, images[0] if images else None, param, position))
