"""Fixtures shared by several test files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.hub_client import loopback_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.hub_server import MemoryHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHub]:
    """A Hub in memory; the client of this process is configured to use it."""
    with loopback_hub(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to train from: a data set, backbones, and a model without dropout."""
    from tests.support.toy_training import save_backbones, save_start, save_training_data

    folder = tmp_path_factory.mktemp("toy")
    save_training_data(folder / "data")
    save_backbones(folder)
    save_start(folder / "start")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fresh_engine(cache: Path) -> None:
    """Reset Accelerate, whose state would otherwise last as long as the process, and use an empty cache."""
    from tests.support.toy_training import reset_engine

    reset_engine()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a saved model."""
    from tests.support.helpers import tiny_model

    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a saved data set."""
    from ciea_hf.data import save_retrieval_dataset
    from tests.support.toy_retrieval import toy_dataset

    folder = tmp_path_factory.mktemp("data") / "toy"
    save_retrieval_dataset({"test": toy_dataset()}, folder, "# Toy")
    return str(folder)


@pytest.fixture
def transformers_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Log records of transformers and of the model, which uses its logger."""
    logger = logging.getLogger("transformers")
    logger.propagate = True
    yield caplog
    logger.propagate = False
