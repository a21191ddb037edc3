"""Batches: order, fairness, isolation of failures, cancellation, limits."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.serve.batching import Batcher, QueueFullError, Work

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorder:
    """Doubles numbers; records batches; waits for `release` at the first."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, list[Any]]] = []
        self.started = threading.Event()
        self.release = threading.Event()

    def __call__(self, key: Any, payloads: list[Any]) -> list[Any]:
        self.batches.append((key, list(payloads)))
        self.started.set()
        self.release.wait(10)
        if "bad" in payloads:
            raise ValueError("bad payload")
        return [ValueError("odd") if value == "odd" else value * 2 for value in payloads]


@contextmanager
def batcher(recorder: Recorder, max_items: int = 4, max_cost: int = 100, max_waiting: int = 1000) -> Iterator[Batcher]:
    made = Batcher(recorder, max_items, max_cost, max_waiting)
    try:
        yield made
    finally:
        recorder.release.set()
        made.close()


def works(payloads: list[Any], key: Any = "k", cost: int = 1) -> list[Work]:
    return [Work(key, cost, payload) for payload in payloads]


async def occupy(made: Batcher, recorder: Recorder) -> asyncio.Task[Any]:
    """Submit an input and wait until it is being computed, so that what follows queues."""
    task = asyncio.ensure_future(made.submit(works([0])))
    await asyncio.to_thread(recorder.started.wait, 10)
    return task


def test_results_in_order_and_keys_apart() -> None:
    recorder = Recorder()
    recorder.release.set()

    async def scenario(made: Batcher) -> list[Any]:
        mixed = [Work(number % 2, 1, number) for number in range(9)]
        return await made.submit(mixed)

    with batcher(recorder) as made:
        assert asyncio.run(scenario(made)) == [2 * number for number in range(9)]
    assert all(len({number % 2 for number in payloads}) == 1 for _, payloads in recorder.batches)
    assert max(len(payloads) for _, payloads in recorder.batches) == 4


def test_a_short_request_is_not_behind_a_long_one() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> None:
        first = await occupy(made, recorder)
        long = asyncio.ensure_future(made.submit(works(list(range(100, 120)))))
        await asyncio.sleep(0)
        short = asyncio.ensure_future(made.submit(works([7])))
        await asyncio.sleep(0)
        recorder.release.set()
        assert await short == [14]
        await asyncio.gather(first, long)

    with batcher(recorder) as made:
        asyncio.run(scenario(made))
    assert 7 in recorder.batches[1][1]
    assert len(recorder.batches[1][1]) == 4


def test_keys_take_turns() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> None:
        tasks = [await occupy(made, recorder)]
        for key in ("a", "b"):
            tasks.append(asyncio.ensure_future(made.submit(works([1] * 8, key))))
            await asyncio.sleep(0)
        recorder.release.set()
        await asyncio.gather(*tasks)

    with batcher(recorder) as made:
        asyncio.run(scenario(made))
    assert [key for key, _ in recorder.batches[1:]] == ["a", "b", "a", "b"]


def test_cost_counts_padding_and_an_expensive_input_goes_alone() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> None:
        first = await occupy(made, recorder)
        costs = [60, 30, 30, 500, 10]
        queued = asyncio.ensure_future(made.submit([Work("k", cost, cost) for cost in costs]))
        await asyncio.sleep(0)
        recorder.release.set()
        await asyncio.gather(first, queued)

    with batcher(recorder) as made:
        asyncio.run(scenario(made))
    assert [payloads for _, payloads in recorder.batches[1:]] == [[60], [30, 30], [500], [10]]


def test_only_the_payload_that_fails_fails() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> list[list[Any]]:
        first = await occupy(made, recorder)
        requests = [asyncio.ensure_future(made.submit(works(payloads))) for payloads in ([1, "odd"], ["bad"], [3])]
        await asyncio.sleep(0)
        recorder.release.set()
        await first
        return await asyncio.gather(*requests)

    with batcher(recorder) as made:
        one, two, three = asyncio.run(scenario(made))
    assert one[0] == 2
    assert isinstance(one[1], ValueError)
    assert isinstance(two[0], ValueError)
    assert three == [6]
    assert len(recorder.batches[1][1]) == 4, "they shared a batch"


def test_a_cancelled_request_leaves_the_queue() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> None:
        first = await occupy(made, recorder)
        gone = asyncio.ensure_future(made.submit(works(["gone"] * 9)))
        await asyncio.sleep(0)
        assert made.waiting == 9
        gone.cancel()
        await asyncio.wait([gone])
        assert made.waiting == 0
        recorder.release.set()
        assert await made.submit(works([5])) == [10]
        await first

    with batcher(recorder) as made:
        asyncio.run(scenario(made))
    assert [payloads for _, payloads in recorder.batches] == [[0], [5]]


def test_a_full_queue_rejects_but_an_empty_one_takes_any_request() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> None:
        first = await occupy(made, recorder)
        large = asyncio.ensure_future(made.submit(works([1] * 12)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="12 inputs are waiting; the queue holds 10"):
            await made.submit(works([1]))
        recorder.release.set()
        await asyncio.gather(first, large)

    with batcher(recorder, max_waiting=10) as made:
        asyncio.run(scenario(made))


def test_closing_finishes_what_waits() -> None:
    recorder = Recorder()

    async def scenario(made: Batcher) -> None:
        first = await occupy(made, recorder)
        second = asyncio.ensure_future(made.submit(works([4])))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(made.close))
        await asyncio.sleep(0.05)
        recorder.release.set()
        await closing
        assert await asyncio.gather(first, second) == [[0], [8]]
        with pytest.raises(RuntimeError, match="shutting down"):
            await made.submit(works([1]))
        assert not made.alive

    with batcher(recorder) as made:
        asyncio.run(scenario(made))
