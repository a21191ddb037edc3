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


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to train from: a data set, backbones, and a model that does not drop out."""
    from tests.toy_training import save_backbones, save_start, save_training_data

    folder = tmp_path_factory.mktemp("toy")
    save_training_data(folder / "data")
    save_backbones(folder)
    save_start(folder / "start")
    return folder


@pytest.fixture
def fresh_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Begin a run anew, though Accelerate keeps its state as long as the process lives, and with an empty cache."""
    from tests.toy_training import reset_engine

    reset_engine()
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
