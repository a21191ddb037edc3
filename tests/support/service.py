"""A live service on loopback in this process."""

from __future__ import annotations

import base64
import threading
import time
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ciea_hf.serve.engine import Engine
from ciea_hf.serve.listening import bind
from ciea_hf.serve.options import ServeOptions
from ciea_hf.serve.server import server_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from ciea_hf.retrieval import Retriever

PATIENCE = 20.0


@contextmanager
def running(model: Any, retriever: Retriever | None = None, **options: Any) -> Iterator[str]:
    """Serve a model; yields the base URL."""
    listener = bind("127.0.0.1", 0)
    server = server_for(Engine(model, ServeOptions(**options), retriever))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


def data_uri(image: Image.Image, form: str = "PNG") -> str:
    """An image as clients send it."""
    buffer = BytesIO()
    image.save(buffer, format=form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
