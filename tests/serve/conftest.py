"""A service shared by the tests of its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ciea_hf.retrieval import Retriever
from tests.support.helpers import tiny_model
from tests.support.service import running
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf import CIEAModel


@pytest.fixture(scope="session")
def served_model() -> CIEAModel:
    """The model of the service, with prompts that tell queries from documents."""
    model = tiny_model(seed=3)
    model.config.prompts = {"query": "query : ", "document": "photo of "}
    return model


@pytest.fixture(scope="session")
def retriever(served_model: CIEAModel) -> Retriever:
    return Retriever.from_dataset(served_model, toy_dataset())


@pytest.fixture(scope="session")
def url(served_model: CIEAModel, retriever: Retriever) -> Iterator[str]:
    """Base URL of a service with an index."""
    with running(served_model, retriever, model_name="tiny") as base:
        yield base
