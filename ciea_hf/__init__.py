"""CIEA: dense retrieval over text and captioned images."""

from __future__ import annotations

from ciea_hf._version import __version__

__all__ = ["__version__"]
