"""Errors as JSON that the clients of OpenAI, Voyage and Cohere all understand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ErrorDetail(BaseModel):
    """What is wrong, where OpenAI's client looks for it.

    Attributes:
        message: Description.
        type: Kind of error, such as `"invalid_request_error"`.
        param: Field of the request, such as `"input[3].image"`, or `None`.
        code: Status code as text.
        position: Position of the invalid input in its list, from 0, or `None`.
    """

    message: str
    type: str
    param: str | None
    code: str
    position: int | None


class ErrorResponse(BaseModel):
    """Body of every response with an error.

    Attributes:
        error: The error, for OpenAI's client.
        message: Its description, for Cohere's client.
        detail: Its description, for Voyage's client.
    """

    error: ErrorDetail
    message: str
    detail: str


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: Description.
        param: Field of the request.
        position: Position of the invalid input in its list.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        position: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.position = position
        self.headers = dict(headers or {})


class InvalidInputError(RequestError):
    """Input `position` of a request is invalid: status 400.

    Args:
        message: Description without the position.
        position: Position of the input in its list.
        param: Field of the request.
    """

    def __init__(self, message: str, position: int, param: str) -> None:
        super().__init__(400, f"{param}: {message}", param, position)


def overloaded(message: str, retry_after: int = 1) -> RequestError:
    """Return the error for a request beyond the limit of the queue: status 429."""
    return RequestError(429, message, headers={"Retry-After": str(retry_after)})


def error_response(error: RequestError) -> Response:
    """Return an error as a JSON response."""
    kind = TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    detail = {
        "message": error.message,
        "type": kind,
        "param": error.param,
        "code": str(error.status),
        "position": error.position,
    }
    content = orjson.dumps({"error": detail, "message": error.message, "detail": error.message})
    return Response(content, error.status, error.headers, "application/json")


async def on_request_error(request: Request, error: RequestError) -> Response:  # noqa: ARG001 (signature of a handler)
    """Handle [`RequestError`]."""
    return error_response(error)


async def on_http_error(request: Request, error: HTTPException) -> Response:
    """Handle errors of the framework: unknown paths and methods, and bodies that are not JSON."""
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(RequestError(error.status_code, message, headers=error.headers))


async def on_validation_error(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001
    """Handle a body that does not match its schema; the message names the field."""
    first = error.errors()[0]
    location = [part for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return error_response(RequestError(400, f"the body is not valid JSON: {first['ctx']['error']}"))
    if not location and isinstance(first["input"], bytes):
        return error_response(RequestError(415, "the body must be JSON, sent with Content-Type: application/json"))
    param = field_name(location)
    position = next((part for part in location if isinstance(part, int)), None)
    message = f"{param}: {first['msg']}" if param else f"the body: {first['msg']}"
    return error_response(RequestError(400, message, param or None, position))


def field_name(location: list[str | int]) -> str:
    """Join a location into a name such as `inputs[3].content[0].text`."""
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name
