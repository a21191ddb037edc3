"""SIGTERM handling: schedulers send it before they take a machine away."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Preempted(Exception):  # noqa: N818 (a signal, not an error)
    """Raised after a SIGTERM, once a checkpoint has been written."""


class Preemption:
    """Records a SIGTERM, so that the current step can finish and be saved.

    Attributes:
        requested: Whether this process has received a SIGTERM.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handle the signal within a `with` block; does nothing outside the main thread."""
        try:
            before = signal.signal(signal.SIGTERM, self._note)
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _note(self, *_: object) -> None:
        self.requested = True
