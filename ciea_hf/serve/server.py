"""Serving of an application by uvicorn, which drains on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from ciea_hf.serve.app import create_app

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from ciea_hf.serve.engine import Engine

KEEP_ALIVE = 65  # seconds; longer than the 60 of common load balancers, which must be the first to close
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def server_for(engine: Engine) -> uvicorn.Server:
    """Return a server of an engine's application."""
    config = uvicorn.Config(
        create_app(engine),
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(engine.options.drain_timeout)),
    )
    return uvicorn.Server(config)


def serve(engine: Engine, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and then until the requests in progress are answered.

    Args:
        engine: Engine with model and limits; it is closed at the end.
        listener: Bound socket; see `ciea_hf.serve.listening.bind`.
    """
    with _signals_end_quietly():
        server_for(engine).run(sockets=[listener])


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Let the process end with status 0 after uvicorn's shutdown, which raises the signal again at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
