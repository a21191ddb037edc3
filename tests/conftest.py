"""Fixtures that several test files share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hub_client import loopback_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hub_server import MemoryHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHub]:
    """A Hub in memory, which this process's client takes for the real one."""
    with loopback_hub(tmp_path, monkeypatch) as hub:
        yield hub
