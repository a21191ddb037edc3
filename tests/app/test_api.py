"""The API of the page: `search` alone, with hits as data; nothing is fetched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.helpers import toy_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.app.conftest import Server


@pytest.fixture
def client(server: Server) -> Any:
    return pytest.importorskip("gradio_client").Client(server.url, verbose=False, analytics_enabled=False)


def test_search_is_the_only_public_function(client: Any) -> None:
    described = client.view_api(return_format="dict", all_endpoints=True)
    assert list(described["named_endpoints"]) == ["/search"]
    assert described["unnamed_endpoints"] == {}
    parameters = described["named_endpoints"]["/search"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == ["text", "image", "kind", "top_k"]


def test_hits_are_data(client: Any, tmp_path: Path) -> None:
    found = client.predict("a red cat", None, "image", 2, api_name="/search")
    assert list(found) == ["first", "second"]
    assert [len(hits) for hits in found.values()] == [2, 2]
    assert {hit["kind"] for hit in found["first"]} == {"image"}
    assert found["first"][0]["score"] >= found["first"][1]["score"]
    from gradio_client import handle_file

    toy_image(3, size=(64, 64)).save(tmp_path / "query.png")
    found = client.predict("", handle_file(str(tmp_path / "query.png")), "all", 1, api_name="/search")
    assert found["first"][0]["id"] == "img-bare"
    json.dumps(found)


def test_errors_are_readable(client: Any) -> None:
    with pytest.raises(Exception, match="`text` or `image` is required"):
        client.predict("  ", None, "all", 2, api_name="/search")


def call(url: str, image: dict[str, Any]) -> str:
    """Call `search` as no client does: with any path in place of an uploaded image. Returns the events."""
    body = {"data": ["", {**image, "meta": {"_type": "gradio.FileData"}}, "all", 2]}
    event = httpx.post(f"{url}/gradio_api/call/search", json=body).json()["event_id"]
    return httpx.get(f"{url}/gradio_api/call/search/{event}", timeout=30).text


def test_urls_and_other_files_are_refused(server: Server, tmp_path: Path) -> None:
    assert "URLs are not fetched" in call(server.url, {"path": "http://198.51.100.7/cat.png"})
    toy_image(0).save(tmp_path / "private.png")
    for image in ({"path": str(tmp_path / "private.png")}, {"path": None, "url": "file:///etc/passwd"}):
        events = call(server.url, image)
        assert "event: error" in events
        assert "score" not in events
    assert not server.log.exists()
