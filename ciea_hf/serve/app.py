"""The application: routes, errors, documentation."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ciea_hf._version import __version__
from ciea_hf.serve import errors
from ciea_hf.serve.gate import OPEN_PATHS, Gate
from ciea_hf.serve.metrics import CONTENT_TYPE
from ciea_hf.serve.shapes import cohere, openai, search, voyage
from ciea_hf.serve.shapes.common import engine_of, json_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ciea_hf.serve.engine import Engine

DESCRIPTION = """\
Embeddings of texts, images and images with captions, in the shapes of OpenAI, Voyage and Cohere, and search over an
index. Images are sent as data URIs; URLs are not fetched.
"""

router = APIRouter(tags=["Service"])


class State(BaseModel):
    """State of the service."""

    status: Literal["ok", "unavailable"]


class Readiness(State):
    """State of the service, and what it serves."""

    model: str
    dimension: int
    index: bool


@router.get("/health", response_model=State)
async def health() -> Response:
    """Tell that the process responds."""
    return json_response({"status": "ok"})


@router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness}})
async def ready(request: Request) -> Response:
    """Tell whether requests are accepted: status 200, or 503 otherwise."""
    engine = engine_of(request)
    content = {
        "status": "ok" if engine.ready else "unavailable",
        "model": engine.options.model_name,
        "dimension": engine.dimension,
        "index": engine.retriever is not None,
    }
    response = json_response(content)
    response.status_code = 200 if engine.ready else 503
    return response


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: {"model": errors.ErrorResponse}},
)
async def metrics(request: Request) -> Response:
    """Return metrics in the format of Prometheus."""
    return Response(engine_of(request).metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def create_app(engine: Engine) -> FastAPI:
    """Create the application.

    Args:
        engine: Engine with model and limits. It is closed when the application stops.

    Returns:
        An ASGI application with documentation at `/docs`, whose pages load nothing from the network.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 (signature of FastAPI)
        yield
        engine.close()

    app = FastAPIOffline(
        title="ciea", version=__version__, description=DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    app.state.engine = engine
    for part in (openai.router, voyage.router, cohere.router, search.router, router):
        app.include_router(part)
    app.add_exception_handler(errors.RequestError, errors.on_request_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, errors.on_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, errors.on_validation_error)  # type: ignore[arg-type]
    schema = _openapi(app, engine)
    app.openapi = lambda: schema  # type: ignore[method-assign]
    app.add_middleware(Gate, options=engine.options, metrics=engine.metrics, routes=set(schema["paths"]))
    return app


def _openapi(app: FastAPI, engine: Engine) -> dict[str, Any]:
    """Return the schema with our errors in place of FastAPI's, and with the API key."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if engine.options.api_key is not None and path not in OPEN_PATHS:
                operation["security"] = [{"key": []}]
    schemas = schema["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if engine.options.api_key is not None:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return schema
