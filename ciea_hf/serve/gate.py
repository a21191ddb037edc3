"""The outer layer of the application: API key, size of bodies, time, disconnected clients, and metrics."""

from __future__ import annotations

import asyncio
import hmac
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio

from ciea_hf.serve.errors import RequestError, error_response, overloaded

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ciea_hf.serve.metrics import Metrics
    from ciea_hf.serve.options import ServeOptions

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/ready")  # need no key
CLIENT_CLOSED = 499


class Gate:
    """Admits requests to an application.

    A body is read completely, up to the limit, before the application sees the request. A request whose client has
    disconnected is cancelled, which takes its inputs out of the queue.

    Args:
        app: The application.
        options: Limits and API key.
        metrics: Receives every request.
        routes: Paths of the application; others are counted together.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: Metrics, routes: set[str]) -> None:
        self._app = app
        self._options = options
        self._metrics = metrics
        self._routes = routes
        self._pending_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        response = _Recorder(send)
        try:
            with anyio.fail_after(self._options.timeout):
                await self._admit(scope, receive, response)
        except RequestError as error:
            await response.fail(error, scope, receive)
        except TimeoutError:
            message = f"the request took more than {self._options.timeout:g} seconds"
            await response.fail(RequestError(503, message, headers={"Retry-After": "1"}), scope, receive)
        except _DisconnectedError:
            response.status = CLIENT_CLOSED
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            await response.fail(RequestError(500, "internal error"), scope, receive)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.on_request(route, response.status, perf_counter() - started)

    async def _admit(self, scope: Scope, receive: Receive, send: _Recorder) -> None:
        self._check_key(scope)
        reader = _BodyReader(receive, self._options.max_body_bytes, self._declared_size(scope))
        try:
            async for size in reader:
                self._pending_bytes += size
                if self._pending_bytes > self._options.max_pending_bytes:
                    raise overloaded("the service is overloaded: too many bytes are being processed")
            await _until_disconnected(self._app, scope, reader, receive, send)
        finally:
            self._pending_bytes -= reader.size

    def _check_key(self, scope: Scope) -> None:
        key = self._options.api_key
        if key is None or scope["path"] in OPEN_PATHS:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), key.encode()):
            message = "the API key is wrong" if token else "an API key is required: send 'Authorization: Bearer KEY'"
            raise RequestError(401, message, headers={"WWW-Authenticate": "Bearer"})

    def _declared_size(self, scope: Scope) -> int:
        text = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        return int(text) if text.isdigit() else 0


class _DisconnectedError(Exception):
    """The client has closed the connection."""


class _BodyReader:
    """Reads a body and replays it; iterating yields the sizes of its parts as they arrive."""

    def __init__(self, receive: Receive, limit: int, declared: int) -> None:
        self._receive = receive
        self._limit = limit
        self._declared = declared
        self._parts: list[bytes] = []
        self._more = True
        self.size = 0

    def __aiter__(self) -> _BodyReader:
        return self

    async def __anext__(self) -> int:
        if max(self._declared, self.size) > self._limit:
            message = f"the body is larger than {self._limit} bytes"
            raise RequestError(413, message, headers={"Connection": "close"})
        if not self._more:
            raise StopAsyncIteration
        received = await self._receive()
        if received["type"] == "http.disconnect":
            raise _DisconnectedError
        part: bytes = received.get("body", b"")
        self._parts.append(part)
        self._more = received.get("more_body", False)
        self.size += len(part)
        return len(part)

    def replay(self) -> Message:
        body, self._parts = b"".join(self._parts), []
        return {"type": "http.request", "body": body, "more_body": False}


class _Recorder:
    """Passes messages on and records the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def fail(self, error: RequestError, scope: Scope, receive: Receive) -> None:
        """Send an error, unless a response has begun."""
        if self.status == 0:
            await error_response(error)(scope, receive, self)


async def _until_disconnected(
    app: ASGIApp, scope: Scope, reader: _BodyReader, receive: Receive, send: _Recorder
) -> None:
    """Run the application; cancel it if the client disconnects."""
    replayed = False
    disconnected = asyncio.Event()

    async def replay() -> Message:
        nonlocal replayed
        if not replayed:
            replayed = True
            return reader.replay()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        disconnected.set()

    running: asyncio.Task[Any] = asyncio.ensure_future(_run(app, scope, replay, send))
    watching = asyncio.ensure_future(watch())
    try:
        await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise _DisconnectedError
        running.result()
    finally:
        running.cancel()
        watching.cancel()


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
