"""Invalid and excessive requests: an error with the position, and no effect on others."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from PIL import Image

from ciea_hf.serve.options import ServeOptions
from tests.support.helpers import tiny_model, toy_image
from tests.support.service import data_uri, running

if TYPE_CHECKING:
    from ciea_hf import CIEAModel

ROUTE = "/v1/embeddings"


def post(url: str, inputs: Any, **fields: Any) -> httpx.Response:
    return httpx.post(url + ROUTE, json={"input": inputs, **fields}, timeout=30)


def truncated_image() -> str:
    buffer = BytesIO()
    toy_image(1, (200, 200)).save(buffer, format="JPEG")
    return data_uri(toy_image(1, (200, 200)), "JPEG")[: len(buffer.getvalue())] + "AAA="


def wide_image() -> str:
    return data_uri(Image.new("1", (3000, 2000)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "the text is empty"),
        (" \n", "the text is empty"),
        (None, "got null"),
        (True, "got a boolean"),
        ([1, 2], "token ids"),
        ([], "got a list"),
        ({}, "needs a text or an image"),
        ({"text": 3}, "text must be a string"),
        ({"text": "a", "image": "https://127.0.0.1/x.png"}, "URLs are not fetched"),
        ({"image": "file:///etc/hostname"}, "URLs are not fetched"),
        ({"image": "/etc/hostname"}, "not valid base64"),
        ({"image": "/etc/hosts.."}, "not valid base64"),
        ({"image": "/etc/motd/AA"}, "cannot be decoded"),
        ({"image": "data:text/html;base64,AAAA"}, "must be a data URI"),
        ({"image": "data:image/png;base64,"}, "the image is empty"),
        ({"image": "data:image/png;base64,AA*="}, "not valid base64"),
        ({"image": "data:image/svg+xml;base64,PHN2Zy8+"}, "cannot be decoded"),
        ({"image": truncated_image()}, "cannot be decoded"),
        ({"image": wide_image()}, "3000 x 2000 pixels"),
    ],
)
def test_an_invalid_input_fails_its_request_alone(served_model: CIEAModel, bad: Any, message: str) -> None:
    with running(served_model, max_image_pixels=1_000_000) as url, ThreadPoolExecutor(8) as pool:
        good = [pool.submit(post, url, ["dog", {"text": "cat", "image": data_uri(toy_image(2))}]) for _ in range(4)]
        failed = [pool.submit(post, url, ["dog", bad, "cat"]) for _ in range(4)]
        assert [future.result().status_code for future in good] == [200] * 4
    for response in (future.result() for future in failed):
        assert response.status_code == 400
        error = response.json()["error"]
        assert message in error["message"]
        assert error["message"].startswith("input[1]")
        assert error["position"] == 1
        assert " at 0x" not in error["message"]


class Unstable:
    """A model that raises for one word, and returns NaN for another."""

    def __init__(self) -> None:
        self.model = tiny_model()

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        if any("hammer" in str(item) for item in inputs):
            raise RuntimeError("out of memory")
        rows = self.model.encode_document(inputs, **options)
        for row, item in zip(rows, inputs, strict=True):
            if "bread" in str(item):
                row[0] = torch.nan
        return rows

    encode_query = encode_document


@pytest.mark.parametrize("word", ["hammer", "bread"])
def test_a_failure_of_the_model_has_a_position_too(word: str) -> None:
    with running(Unstable()) as url, ThreadPoolExecutor(4) as pool:
        failing = pool.submit(post, url, ["dog", "cat", word])
        good = pool.submit(post, url, ["dog", "cat", "house"])
        assert failing.result().status_code == 500
        assert failing.result().json()["error"]["position"] == 2
        assert good.result().status_code == 200


class Slow:
    """A model that waits for `release`."""

    def __init__(self) -> None:
        self.model = tiny_model()
        self.release = threading.Event()
        self.release.set()
        self.seen: list[str] = []

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        self.seen += [str(item).strip() for item in inputs]
        self.release.wait(20)
        return self.model.encode_document(inputs, **options)

    encode_query = encode_document


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def metric(url: str, line: str) -> float:
    found = [row for row in httpx.get(f"{url}/metrics").text.splitlines() if row.startswith(line)]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_a_full_queue_is_429_with_retry_after() -> None:
    model = Slow()
    with running(model, max_queue=2) as url, ThreadPoolExecutor(4) as pool:
        model.release.clear()
        first = pool.submit(post, url, "dog")
        until(lambda: "dog" in model.seen)
        second = pool.submit(post, url, ["cat", "cat"])
        until(lambda: metric(url, "ciea_queue_inputs ") == 2)
        rejected = post(url, "house")
        assert rejected.status_code == 429
        assert int(rejected.headers["retry-after"]) >= 1
        assert rejected.json()["error"]["type"] == "rate_limit_error"
        assert httpx.get(f"{url}/health").status_code == 200
        model.release.set()
        assert [future.result().status_code for future in (first, second)] == [200, 200]


def test_a_slow_request_is_given_up_and_a_disconnected_one_is_not_computed() -> None:
    model = Slow()
    with running(model, timeout=0.5) as url:
        model.release.clear()
        response = post(url, "dog")
        assert response.status_code == 503
        assert "more than 0.5 seconds" in response.json()["message"]
        assert post(url, "boat").status_code == 503
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + ROUTE, json={"input": "tower"}, timeout=0.1)
        until(lambda: metric(url, 'ciea_requests_total{route="/v1/embeddings",status="499"}') == 1)
        model.release.set()
        assert post(url, "cat").status_code == 200
    assert "cat" in model.seen
    assert not {"boat", "tower"} & set(model.seen)


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_rejected_before_it_is_complete(url_small: str, declared: bool) -> None:
    parts = urlsplit(url_small)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as client:
        size = b"Content-Length: 99999999" if declared else b"Transfer-Encoding: chunked"
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + size)
        client.sendall(b"\r\n\r\n" + (b"" if declared else (b"800\r\n" + b"x" * 2048 + b"\r\n") * 2))
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.fixture(scope="module")
def url_small(served_model: CIEAModel) -> Any:
    limits: dict[str, Any] = {
        "max_body_bytes": 3000,
        "max_inputs": 3,
        "max_image_bytes": 500,
        "max_pending_pixels": 5000,
    }
    with running(served_model, **limits) as base:
        yield base


def test_limits_on_numbers_and_sizes(url_small: str) -> None:
    assert "at most 3 inputs per request; got 4" in post(url_small, ["a"] * 4).json()["message"]
    large = post(url_small, {"image": data_uri(toy_image(1, (20, 20)))})
    assert (large.status_code, "larger than 500 bytes" in large.json()["message"]) == (400, True)
    flat = {"image": data_uri(Image.new("RGB", (60, 60)))}
    assert post(url_small, [flat]).status_code == 200
    together = post(url_small, [flat, flat])
    assert (together.status_code, "5000 pixels" in together.json()["message"]) == (413, True)
    assert post(url_small, [flat]).status_code == 200, "the reservation was returned"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"input": "a"}', "text/plain", 415),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"input": "\\ud800"}', "application/json", 400),
        (b'{"input": NaN}', "application/json", 400),
        (b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"input": "a", "dimensions": 0}', "application/json", 400),
        (b'{"input": "a", "dimensions": 33}', "application/json", 400),
        (b'{"input": "a", "output_dtype": "ubinary", "dimensions": 5}', "application/json", 400),
    ],
)
def test_malformed_bodies(url: str, content: bytes, kind: str, status: int) -> None:
    response = httpx.post(url + ROUTE, content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert response.json()["error"]["code"] == str(status)


def test_options_are_checked() -> None:
    invalid: list[dict[str, Any]] = [{"max_queue": 0}, {"timeout": -1.0}, {"api_key": " "}]
    for options in invalid:
        with pytest.raises(ValueError, match=next(iter(options))):
            ServeOptions(**options)


def test_a_text_that_names_a_file_is_a_text(url: str, served_model: CIEAModel, tmp_path: Any) -> None:
    file = tmp_path / "cat.png"
    toy_image(1).save(file)
    found = post(url, str(file)).json()["data"][0]["embedding"]
    image = served_model.encode([toy_image(1)], normalize_embeddings=True)[0].tolist()
    assert found != pytest.approx(image, abs=1e-3)


def test_pages_of_the_documentation_load_nothing_from_elsewhere(url: str) -> None:
    for page in ("/docs", "/redoc"):
        text = httpx.get(url + page).text
        assert "https://" not in text
        assert "http://" not in text
    assert httpx.get(f"{url}/static-offline-docs/swagger-ui-bundle.js").status_code == 200
