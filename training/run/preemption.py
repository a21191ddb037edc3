"""Orders from outside to stop: SIGTERM, as schedulers send it before they take a machine away."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Preempted(Exception):  # noqa: N818 (an order, not an error)
    """Raised after the checkpoint that a SIGTERM asks for has been written."""


class Preemption:
    """Notes a SIGTERM, so that the step in progress can end and be saved.

    Attributes:
        ordered: Whether this process has got one.
    """

    def __init__(self) -> None:
        self.ordered = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for the signal; outside the main thread, where Python has no signals, do nothing."""
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
        self.ordered = True
