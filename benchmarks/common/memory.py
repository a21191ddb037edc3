"""A process's memory, as Linux tells it, and processes of their own to measure it in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_SECONDS_BETWEEN = 0.05


def measure_in_child(module: str, setting: Sequence[Any], environment: Mapping[str, str] | None = None) -> list[Any]:
    """Run a benchmark script in a new process, with `--child` and a setting.

    Args:
        module: Dotted name of the script's module.
        setting: What the new process measures.
        environment: Variables to set beside the present ones.

    Returns:
        The last line that it writes, a JSON list.
    """
    command = [sys.executable, "-m", module, "--child", json.dumps(setting)]
    variables = os.environ | dict(environment or {})
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def reset_peak() -> int:
    """Forget the peak of this process's resident memory so far; return its resident memory now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def resident(name: str) -> int:
    """Read a line of the process's status, in bytes: `VmRSS` is resident now, `VmHWM` at the peak.

    `RssAnon` is what is resident now and no file's: pages of memory maps, which the system takes back, aside.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


class AnonymousPeak:
    """Watches what is resident and no file's, twenty times a second.

    Attributes:
        bytes: The highest value seen.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, resident("RssAnon"))
            if self._over.wait(_SECONDS_BETWEEN):
                return
