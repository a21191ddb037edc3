"""Headless Chromium for tests of pages, and what it must not do: reach other machines, or report errors."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_CHROMIUM = f"none of {', '.join(NAMES)} is installed"


def chromium() -> str | None:
    """The installed browser, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def launched(path: str) -> Iterator[Any]:
    """A browser; the sandbox is off, because it cannot be set up as root or in a container."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class WatchedPage:
    """A page of a browser with a record of its requests and errors.

    Args:
        browser: The browser.
        width: Width of the window in pixels.
        height: Height of the window in pixels.
    """

    def __init__(self, browser: Any, width: int = 1280, height: int = 900) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.page = self.context.new_page()
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or ""))
        self.page.on("console", self._on_console)
        self.page.on("response", self._on_response)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._on_dialog)

    def close(self) -> None:
        """Close the page; nothing may have gone to another machine, and nothing may have failed."""
        self.context.close()
        assert self.hosts <= {"127.0.0.1", ""}, self.hosts  # data URIs have no host
        assert not self.errors, self.errors

    def _on_response(self, response: Any) -> None:
        if response.status >= 400:
            self.errors.append(f"{response.status} {response.url} {response.request.post_data}"[:400])

    def _on_dialog(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)
