"""Dynamic batching: inputs of all waiting requests share forward passes, fairly.

One thread computes. While it computes, inputs gather, and the next batch takes as many of them as its limits allow; no
input ever waits for a timer. Inputs with the same key (kind, prompt, similar length) form a batch. Keys take turns, and
within a key requests take turns, one input each. A request with thousands of inputs, or with long ones, therefore
delays a short request by about one batch of each other key.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """One input.

    Attributes:
        key: Inputs with equal keys may share a batch.
        cost: Cost of the input; the most expensive input of a batch determines the cost of each, as padding does.
        payload: What is computed on.
    """

    key: Hashable
    cost: int
    payload: Any


class QueueFullError(Exception):
    """The queue has no room for a request."""


@dataclass(eq=False)
class _Request:
    """A request whose inputs wait or are being computed."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    results: list[Any]
    remaining: int
    waiting: dict[Hashable, deque[tuple[int, Work]]] = field(default_factory=dict)

    def deliver(self, position: int, result: Any) -> None:
        self.results[position] = result
        self.remaining -= 1
        if self.remaining == 0 and not self.future.done():
            self.future.set_result(self.results)


class Batcher:
    """Computes inputs of concurrent requests in batches, on one thread.

    Args:
        compute: Function of a key and payloads that returns one result per payload. An exception in place of a result
            concerns that payload alone. If `compute` raises, the batch is halved and computed again, until only the
            payloads that cause the error fail.
        max_items: Maximum number of inputs per batch.
        max_cost: Maximum cost of a batch: its most expensive input's cost times its size.
        max_waiting: Number of waiting inputs beyond which requests are rejected, unless nothing waits.
        observe: Function that receives size and seconds of every batch.
    """

    def __init__(
        self,
        compute: Callable[[Any, list[Any]], Sequence[Any]],
        max_items: int,
        max_cost: int,
        max_waiting: int,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._compute = compute
        self._max_items = max_items
        self._max_cost = max_cost
        self._max_waiting = max_waiting
        self._observe = observe
        self._turns: OrderedDict[Hashable, deque[_Request]] = OrderedDict()
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ciea-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of inputs that wait."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether inputs are accepted and computed."""
        return self._thread.is_alive() and not self._closed

    async def submit(self, works: Sequence[Work]) -> list[Any]:
        """Compute inputs together with those of other requests.

        A cancelled request leaves the queue.

        Args:
            works: The inputs.

        Returns:
            A result per input; an exception if the input failed.

        Raises:
            QueueFullError: If the queue is full.
            RuntimeError: If the batcher is closed.
        """
        if not works:
            return []
        loop = asyncio.get_running_loop()
        request = _Request(loop, loop.create_future(), [None] * len(works), len(works))
        for position, work in enumerate(works):
            request.waiting.setdefault(work.key, deque()).append((position, work))
        with self._changed:
            if self._closed:
                raise RuntimeError("the service is shutting down")
            if self._waiting and self._waiting + len(works) > self._max_waiting:
                raise QueueFullError(f"{self._waiting} inputs are waiting; the queue holds {self._max_waiting}")
            self._waiting += len(works)
            for key in request.waiting:
                self._turns.setdefault(key, deque()).append(request)
            self._changed.notify()
        try:
            return await request.future
        finally:
            with self._changed:
                self._waiting -= sum(map(len, request.waiting.values()))
                request.waiting.clear()

    def close(self) -> None:
        """Compute what waits, then stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._next_batch()):
                    if self._closed:
                        return
                    self._changed.wait()
            started = perf_counter()
            results = self._results(batch[0][2].key, [work.payload for _, _, work in batch])
            if self._observe is not None:
                self._observe(len(batch), perf_counter() - started)
            _deliver(batch, results)

    def _next_batch(self) -> list[tuple[_Request, int, Work]]:
        """Take the next batch of the key whose turn it is; empty if nothing waits."""
        batch: list[tuple[_Request, int, Work]] = []
        while self._turns and not batch:
            key, requests = self._turns.popitem(last=False)
            cost = 0
            while requests and len(batch) < self._max_items:
                queue = requests[0].waiting.get(key)
                if not queue:  # all taken, or cancelled
                    requests.popleft()
                    continue
                cost = max(cost, queue[0][1].cost)
                if batch and cost * (len(batch) + 1) > self._max_cost:
                    break
                batch.append((requests[0], *queue.popleft()))
                requests.rotate(-1)
            if requests:
                self._turns[key] = requests  # to the end: the other keys are next
        self._waiting -= len(batch)
        return batch

    def _results(self, key: Hashable, payloads: list[Any]) -> Sequence[Any]:
        try:
            return self._compute(key, payloads)
        except Exception as error:  # whatever it is, it must not stop the thread
            if len(payloads) == 1:
                logger.exception("an input failed")
                return [error]
            middle = len(payloads) // 2
            return [*self._results(key, payloads[:middle]), *self._results(key, payloads[middle:])]


def _deliver(batch: list[tuple[_Request, int, Work]], results: Sequence[Any]) -> None:
    """Hand results to the event loops that wait for them, with one call per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Request, int, Any]]] = {}
    for (request, position, _), result in zip(batch, results, strict=True):
        by_loop.setdefault(request.loop, []).append((request, position, result))
    for loop, entries in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver_entries, entries)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            logger.debug("results of a closed event loop were dropped")


def _deliver_entries(entries: list[tuple[_Request, int, Any]]) -> None:
    for request, position, result in entries:
        request.deliver(position, result)
