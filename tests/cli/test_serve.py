"""`ciea serve` as a process: what it prints, draining on SIGTERM, errors before the model loads."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from ciea_hf.cli import main
from tests.support.commands import fails

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cache")


def test_sigterm_drains(model: str, dataset: str, tmp_path: Path) -> None:
    assert main(["index", model, dataset, "--output", str(tmp_path / "index")]) == 0
    command = [sys.executable, "-m", "ciea_hf.cli", "serve", model, "--index", str(tmp_path / "index"), "--port", "0"]
    with subprocess.Popen([*command, "--batch-size", "1"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = line.split()[0]
            assert "32 dimensions" in line
            hits = httpx.post(f"{url}/search", json={"query": "a cup", "top_k": 2}).json()["hits"]
            assert len(hits) == 2
            with ThreadPoolExecutor(1) as pool:
                long = pool.submit(httpx.post, f"{url}/v1/embeddings", json={"input": ["a red cat"] * 500}, timeout=60)
                while "ciea_queue_inputs 0.0" in httpx.get(f"{url}/metrics").text:
                    assert not long.done(), "the request was too short to be interrupted"
                process.send_signal(signal.SIGTERM)
                assert len(long.result().json()["data"]) == 500
            assert process.wait(30) == 0
        finally:
            process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_errors_come_before_the_model_loads(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in fails(capsys, "serve", "/no/model", "--port", port)
    (tmp_path / "key").write_text("\n")
    assert "is empty" in fails(capsys, "serve", model, "--api-key-file", str(tmp_path / "key"), "--port", "0")
    assert "is not an index" in fails(capsys, "serve", model, "--index", str(tmp_path), "--port", "0")
    with pytest.raises(SystemExit):
        main(["serve", model, "--port", "70000"])
    assert "0 to 65535" in capsys.readouterr().err
