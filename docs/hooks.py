"""Hooks of the site: references in docstrings, and a check that pages load nothing from other hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

EXTERNAL_ASSET = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?https?://|<link\b[^>]*\brel=[\"']?stylesheet[^>]*\bhref=[\"']?https?://"
)


def on_post_build(config: Any, **_: Any) -> None:
    """Check that no page loads scripts, styles or images from another host.

    Raises:
        ValueError: If a page does.
    """
    for page in Path(config["site_dir"]).rglob("*.html"):
        found = EXTERNAL_ASSET.search(page.read_text(encoding="utf-8"))
        if found:
            raise ValueError(f"{page} loads an asset from another host: {found.group()}")


def on_page_content(html: str, **_: Any) -> str:
    """Render references of docstrings such as [`FlatIndex`] as code, without the brackets."""
    return re.sub(r"\[(<code>[^<]+</code>)\]", r"\1", html)
