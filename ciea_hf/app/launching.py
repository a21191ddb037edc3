"""Serving of the page."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from collections.abc import Callable

STYLE = Path(__file__).with_name("page.css")
MEGABYTE = 1 << 20
FONT = ("system-ui", "sans-serif")
MONOSPACE = ("ui-monospace", "monospace")


def launch(page: gr.Blocks, host: str, port: int, max_image_bytes: int = 16 * MEGABYTE) -> str:
    """Serve a page in the background; fonts, scripts and styles come from this machine alone.

    Args:
        page: Page of [`create_page`].
        host: Address to listen on.
        port: Port to listen on.
        max_image_bytes: Maximum size of an uploaded file.

    Returns:
        The URL of the page.

    Raises:
        OSError: If the address cannot be used.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio requests its own page once
    page.queue(max_size=64)
    _, url, _ = page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
        max_file_size=max_image_bytes, footer_links=["api"], run_history=False, enable_monitoring=False,
        mcp_server=False, ssr_mode=False, pwa=False, show_error=True, css_paths=STYLE, theme=_theme(),
    )  # fmt: skip
    return str(url)


def wait_for_signal(page: gr.Blocks, ready: Callable[[], Any]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        page: A launched page.
        ready: Called once the signals are handled.
    """
    stopped = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ready()
        stopped.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        page.close(verbose=False)


def _theme() -> Any:
    return gr.themes.Default(primary_hue="teal", font=FONT, font_mono=MONOSPACE)
