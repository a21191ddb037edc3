"""`POST /v1/embeddings`, the shape of OpenAI, with images as in Jina's service and the options of Voyage's clients."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, WithJsonSchema

from ciea_hf.serve.inputs import INPUT_SCHEMA, check_number, parse_inputs
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

router = APIRouter(tags=["OpenAI"], responses=ERRORS)

INPUTS_SCHEMA = {"anyOf": [*INPUT_SCHEMA["anyOf"], {"type": "array", "items": INPUT_SCHEMA, "minItems": 1}]}
ROLES = {"retrieval.query": "query", "retrieval.passage": "document"}  # Jina's names of tasks


class EmbeddingsRequest(Body):
    """Texts, images or both to embed.

    Attributes:
        input: Text, object of text and image, or a list of these.
        model: Ignored: the service has one model.
        encoding_format: Whether vectors are lists of numbers, or base64 of float32.
        dimensions: Number of leading dimensions to keep.
        output_dimension: The same, as Voyage's client calls it.
        output_dtype: Type of the vectors, for Voyage's client.
        input_type: Whether the inputs are queries or documents, which have their own prompts; none by default.
        task: The same, as Jina's service calls it.
        truncation: Whether long texts are truncated; otherwise they are invalid.
    """

    input: Annotated[Any, WithJsonSchema(INPUTS_SCHEMA)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimension = None
    output_dimension: Dimension = None
    output_dtype: Literal["float", "binary", "ubinary"] | None = None
    input_type: Literal["query", "document"] | None = None
    task: str | None = None
    truncation: bool | None = None


class Usage(BaseModel):
    """Numbers of tokens, image patches included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(BaseModel):
    """The embedding of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="numbers, or base64 of them")


class EmbeddingsResponse(BaseModel):
    """The embeddings, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: Usage


class ModelObject(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    owned_by: str


class ModelList(BaseModel):
    """The models of the service: one."""

    object: Literal["list"]
    data: list[ModelObject]


@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
    """Embed texts, images, and images with captions, as OpenAI's service does."""
    engine = engine_of(request)
    items = parse_inputs(body.input, "input")
    check_number(items, "input", engine.options)
    role = body.input_type or ROLES.get(body.task or "")
    embedded = await engine.embed(items, role, body.truncation is not False)
    name = "dimensions" if body.dimensions is not None else "output_dimension"
    rows = truncated(embedded.rows, body.dimensions or body.output_dimension, name, engine.normalize)
    vectors = quantized(rows, body.output_dtype or "float", "output_dtype")
    as_text = body.encoding_format == "base64"
    total = embedded.tokens + embedded.image_tokens
    return json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": base64_vector(vector) if as_text else vector}
                for index, vector in enumerate(vectors)
            ],
            "model": engine.options.model_name,
            "usage": {"prompt_tokens": total, "total_tokens": total},
        }
    )


@router.get("/v1/models", response_model=ModelList)
async def models(request: Request) -> Response:
    """List the model of the service."""
    name = engine_of(request).options.model_name
    return json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "ciea-hf"}]})
