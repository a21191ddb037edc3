"""Connects the real huggingface_hub client, in this process or a subprocess, to the Hub in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from huggingface_hub import constants

from tests.support.hub_server import WRITER, MemoryHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

# Hides the package from a subprocess, as if it were not installed.
HIDE_THE_PACKAGE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ciea_hf", "modeling"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@contextmanager
def loopback_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHub]:
    """Start a Hub that the client of this process uses with a write token; retries do not wait.

    Args:
        cache: Parent folder of the client's cache.
        monkeypatch: Fixture that restores the configuration of the client.

    Yields:
        The Hub.
    """
    with MemoryHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield hub


def python_without_the_package(
    code: str, folder: Path, hub: MemoryHub | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import ciea_hf.

    Args:
        code: Python code.
        folder: Working directory, which also contains the Hugging Face cache of the process.
        hub: Hub that the process uses; offline mode if None.
        **environment: Further environment variables.

    Returns:
        The completed process, with its output.
    """
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": "",
        **({"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER} if hub else {"HF_HUB_OFFLINE": "1"}),
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-c", HIDE_THE_PACKAGE + textwrap.dedent(code)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
