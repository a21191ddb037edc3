"""`POST /search` returns what the retriever finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.helpers import toy_image
from tests.support.service import data_uri, running

if TYPE_CHECKING:
    from ciea_hf import CIEAModel
    from ciea_hf.retrieval import Retriever


def post(url: str, body: Any) -> httpx.Response:
    return httpx.post(f"{url}/search", json=body)


def test_one_query_and_several(url: str, retriever: Retriever) -> None:
    wanted = retriever.search(["a red cat", "tea"], top_k=3)
    response = post(url, {"query": ["a red cat", "tea"], "top_k": 3})
    assert response.status_code == 200
    hits = response.json()["hits"]
    for found, expected in zip(hits, wanted, strict=True):
        assert [(hit["id"], hit["kind"], hit["text"]) for hit in found] == [(h.id, h.kind, h.text) for h in expected]
        assert [hit["score"] for hit in found] == pytest.approx([h.score for h in expected], abs=1e-5)
    alone = post(url, {"query": "a red cat", "top_k": 3}).json()["hits"]
    assert [hit["id"] for hit in alone] == [hit["id"] for hit in hits[0]]


def test_query_of_text_and_image(url: str, retriever: Retriever, served_model: CIEAModel) -> None:
    query = {"text": "a cup", "image": toy_image(5)}
    row = served_model.encode_query([query], normalize_embeddings=True)
    wanted = [hit.id for hit in retriever.search_embeddings(row, 6)[0]]
    found = post(url, {"query": {"text": "a cup", "image": data_uri(toy_image(5))}, "top_k": 6}).json()["hits"]
    assert [hit["id"] for hit in found] == wanted


def test_filter(url: str) -> None:
    hits = post(url, {"query": "a red cat", "top_k": 9, "filter": {"modality": "text"}}).json()["hits"]
    assert {hit["id"] for hit in hits} == {"txt-tea", "txt-sea"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": "a", "top_k": 0}, "top_k"),
        ({"query": "a", "top_k": 10_000}, "top_k: must be at most 1000"),
        ({"query": "a", "topk": 3}, "topk"),
        ({"query": ["a", " "]}, "query[1]: the text is empty"),
        ({"query": {"text": "a", "caption": "b"}}, "valid keys are text and image; got 'caption'"),
        ({"query": {"text": None, "image": None}}, "needs a text or an image"),
        ({"query": "a", "filter": {"kind": {"$near": 1}}}, "`filter`: the operator must be one of"),
        ({"query": "a", "filter": {"planet": "x"}}, "'planet' is not in the index"),
        ({"query": "a", "filter": {"$and": 3}}, "filter"),
        ({"query": "a", "filter": "kind"}, "filter"),
        ({}, "query"),
        ({"query": "a", "filter": {"year": 2020}}, "the field 'year' is not in the index"),
        ({"query": "a", "filter": {"kind": {"$in": "text"}}}, "must have a list of values"),
    ],
)
def test_errors_name_the_field(url: str, body: Any, message: str) -> None:
    response = post(url, body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_without_an_index(served_model: CIEAModel) -> None:
    with running(served_model) as base:
        response = post(base, {"query": "a"})
    assert response.status_code == 404
    assert "--index" in response.json()["error"]["message"]
