"""`POST /v2/embed`, the shape of Cohere."""

from __future__ import annotations

from typing import Literal
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ciea_hf.serve.errors import RequestError
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
from ciea_hf.serve.shapes.voyage import joined

router = APIRouter(tags=["Cohere"], responses=ERRORS)

InputType = Literal["search_query", "search_document", "classification", "clustering", "image"]
VectorType = Literal["float", "base64", "binary", "ubinary"]
ROLES = {"search_query": "query", "search_document": "document", "image": "document"}


class ImageUrl(Body):
    """An image as a data URI; other URLs are not fetched."""

    url: str


class Content(Body):
    """A part of an input: a text or an image."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @property
    def value(self) -> str | None:
        """Text or image, according to the type."""
        if self.type == "text":
            return self.text
        return None if self.image_url is None else self.image_url.url


class EmbedInput(Body):
    """An input: texts and at most one image."""

    content: list[Content] = Field(min_length=1)


class EmbedRequest(Body):
    """Texts, images or mixed inputs to embed; exactly one of the three.

    Attributes:
        model: Ignored: the service has one model.
        input_type: Use of the embeddings, which chooses the prompt.
        texts: Texts.
        images: Images as data URIs.
        inputs: Inputs of text, image or both.
        embedding_types: Types of the vectors; `["float"]` by default.
        output_dimension: Number of leading dimensions to keep.
        truncate: Whether long texts are truncated at their end (`"END"`, the default) or invalid (`"NONE"`).
    """

    model: str | None = None
    input_type: InputType
    texts: list[str] | None = None
    images: list[str] | None = None
    inputs: list[EmbedInput] | None = None
    embedding_types: list[VectorType] | None = Field(default=None, min_length=1)
    output_dimension: Dimension = None
    truncate: Literal["NONE", "END"] | None = None


class Vectors(BaseModel):
    """The embeddings by type."""

    model_config = ConfigDict(populate_by_name=True)

    float_: list[list[float]] | None = Field(default=None, alias="float")
    base64: list[str] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None


class ApiVersion(BaseModel):
    """Version of Cohere's interface."""

    version: str


class BilledUnits(BaseModel):
    """Size of the inputs."""

    input_tokens: int
    images: int


class Meta(BaseModel):
    """What accompanies the embeddings."""

    api_version: ApiVersion
    billed_units: BilledUnits


class EmbedResponse(BaseModel):
    """The embeddings, in the order of the inputs."""

    id: str
    response_type: Literal["embeddings_by_type"]
    embeddings: Vectors
    texts: list[str]
    meta: Meta


@router.post("/v2/embed", response_model=EmbedResponse)
async def embed(body: EmbedRequest, request: Request) -> Response:
    """Embed texts, images, or inputs of both, as Cohere's service does."""
    engine = engine_of(request)
    items = _items(body)
    check_number(items, items[0].param.partition("[")[0], engine.options)
    embedded = await engine.embed(items, ROLES.get(body.input_type), body.truncate != "NONE")
    rows = truncated(embedded.rows, body.output_dimension, "output_dimension", engine.normalize)
    vectors: dict[str, object] = {}
    for kind in body.embedding_types or ["float"]:
        if kind == "base64":
            vectors[kind] = [base64_vector(row) for row in rows]
        else:
            vectors[kind] = quantized(rows, kind, "embedding_types")
    return json_response(
        {
            "id": str(uuid4()),
            "response_type": "embeddings_by_type",
            "embeddings": vectors,
            "texts": body.texts or [],
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": embedded.tokens, "images": embedded.images},
            },
        }
    )


def _items(body: EmbedRequest) -> list[RawInput]:
    given = [name for name in ("texts", "images", "inputs") if getattr(body, name)]
    if len(given) != 1:
        raise RequestError(
            400, f"exactly one of texts, images and inputs is required; got {', '.join(given) or 'none'}"
        )
    if body.texts:
        return [checked(RawInput(text, None, f"texts[{n}]", n)) for n, text in enumerate(body.texts)]
    if body.images:
        return [checked(RawInput(None, image, f"images[{n}]", n)) for n, image in enumerate(body.images)]
    items = []
    for position, item in enumerate(body.inputs or []):
        items.append(joined([(part.type, part.value) for part in item.content], position))
    return items
