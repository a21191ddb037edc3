"""`POST /search`: hits of an index for queries of text, image or both."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, WithJsonSchema

from ciea_hf.serve.errors import RequestError
from ciea_hf.serve.inputs import check_number, parse_inputs
from ciea_hf.serve.shapes.common import ERRORS, StrictBody, engine_of, json_response
from ciea_hf.serve.shapes.openai import INPUTS_SCHEMA

router = APIRouter(tags=["Search"], responses=ERRORS)


class SearchRequest(StrictBody):
    """One query or several.

    Attributes:
        query: Text, object of text and image, or a list of these.
        top_k: Number of hits per query.
        filter: Conditions on the documents.
    """

    query: Annotated[Any, WithJsonSchema(INPUTS_SCHEMA)]
    top_k: int = Field(default=10, ge=1)
    filter: dict[str, Any] | None = None


class SearchHit(BaseModel):
    """A document that was found."""

    id: str
    score: float
    kind: Literal["text", "image"]
    text: str | None
    metadata: dict[str, Any]


class SearchResponse(BaseModel):
    """Hits, best first; a list of hits per query if the request has a list of queries."""

    hits: list[SearchHit] | list[list[SearchHit]]


@router.post("/search", response_model=SearchResponse)
async def search(body: SearchRequest, request: Request) -> Response:
    """Find the documents that are most similar to each query."""
    engine = engine_of(request)
    if body.top_k > engine.options.max_top_k:
        raise RequestError(400, f"top_k: must be at most {engine.options.max_top_k}; got {body.top_k}", "top_k")
    items = parse_inputs(body.query, "query")
    check_number(items, "query", engine.options)
    hits = await engine.search(items, body.top_k, body.filter)
    return json_response({"hits": hits if isinstance(body.query, list) else hits[0]})
