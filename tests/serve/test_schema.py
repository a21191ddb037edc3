"""Requests that schemathesis generates from the OpenAPI schema, valid and invalid, get the documented responses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

PATHS = {
    "/v1/embeddings", "/v1/models", "/v1/multimodalembeddings", "/v2/embed", "/search", "/health", "/ready", "/metrics",
}  # fmt: skip
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 40


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/multimodalembeddings", "/v2/embed", "/search"])
def test_generated_requests_get_documented_responses(url: str, path: str, mode: GenerationMode) -> None:
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path]["POST"]
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def check(case: Any) -> None:
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    check()
    assert 400 in statuses if mode == GenerationMode.NEGATIVE else statuses


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/ready", "/metrics"])
def test_documents_without_a_body(url: str, path: str) -> None:
    case = schemathesis.openapi.from_url(f"{url}/openapi.json")[path]["GET"].Case()
    response = case.call()
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS[:-1])


def test_the_schema_lists_every_route(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert set(paths) == PATHS
    assert all("422" not in operation["responses"] for path in paths.values() for operation in path.values())
