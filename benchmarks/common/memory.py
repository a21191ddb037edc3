"""Memory of a process, as reported by Linux, and measurements in separate processes."""

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

_INTERVAL = 0.05  # seconds


def measure_in_child(module: str, setting: Sequence[Any], environment: Mapping[str, str] | None = None) -> list[Any]:
    """Run a benchmark in a new process, with the option `--child` and a setting.

    Args:
        module: Dotted name of the benchmark's module.
        setting: Setting that the new process measures.
        environment: Additional environment variables.

    Returns:
        The JSON list in the last line of its output.
    """
    command = [sys.executable, "-m", module, "--child", json.dumps(setting)]
    variables = os.environ | dict(environment or {})
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    result: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def reset_peak() -> int:
    """Reset the peak of this process's resident memory, and return its current resident memory in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def resident(name: str, process: int | str = "self") -> int:
    """Return a value of `/proc/PROCESS/status` in bytes.

    Args:
        name: `VmRSS` for the current resident memory, `VmHWM` for its peak, or `RssAnon` for the current resident
            memory without memory-mapped files, whose pages the system can reclaim.
        process: Id of the process; this one by default.

    Returns:
        The value in bytes.
    """
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


class AnonymousPeak:
    """Context manager that samples the resident memory without memory-mapped files, twenty times per second.

    Attributes:
        bytes: Peak in bytes.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.bytes = max(self.bytes, resident("RssAnon"))
            if self._stopped.wait(_INTERVAL):
                return
