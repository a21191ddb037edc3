"""Metrics in the format of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts requests, inputs and batches."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "ciea_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "ciea_request_seconds", "Duration of requests.", ["route"], buckets=SECONDS, registry=self._registry
        )
        self._inputs = Counter("ciea_inputs", "Embedded inputs by kind.", ["kind"], registry=self._registry)
        self._batch_inputs = Histogram("ciea_batch_inputs", "Inputs per batch.", buckets=SIZES, registry=self._registry)
        self._batch_seconds = Histogram(
            "ciea_batch_seconds", "Duration of batches.", buckets=SECONDS, registry=self._registry
        )
        self._queue = Gauge("ciea_queue_inputs", "Inputs that wait for a batch.", registry=self._registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Report the result of a function as the length of the queue."""
        self._queue.set_function(length)

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def on_inputs(self, kinds: Sequence[str]) -> None:
        """Count the inputs of a request."""
        for kind in set(kinds):
            self._inputs.labels(kind).inc(kinds.count(kind))

    def on_batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_inputs.observe(size)
        self._batch_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)
