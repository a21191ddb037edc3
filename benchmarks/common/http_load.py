"""Load on an embedding service: connections that each send their next request when they have the response."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.common.memory import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUTE = "/v1/embeddings"
LONG_INPUTS, LONG_WORDS = 64, 80
SAMPLE_SECONDS = 2.0
_BODIES = 64  # requests that are prepared in advance, so that clients do little while the service is measured
_HEADERS = {"Content-Type": "application/json"}
_WORDS = (
    "the",
    "a",
    "red",
    "blue",
    "small",
    "large",
    "cat",
    "dog",
    "house",
    "tree",
    "boat",
    "train",
    "museum",
    "of",
    "in",
)


@dataclass(frozen=True)
class Scenario:
    """One kind of load.

    Attributes:
        description: What is sent.
        connections: Number of connections that send `request`.
        request: Builds the inputs of a request, given a source of random numbers.
        long_connections: Number of further connections that send many long texts at once and are not measured.
    """

    description: str
    connections: int
    request: Callable[[random.Random], list[Any]]
    long_connections: int = 0


@dataclass
class Latencies:
    """Measured requests.

    Attributes:
        seconds: Duration of each request.
        inputs: Number of inputs of all requests.
        elapsed: Duration of the measurement in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    inputs: int = 0
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        """Inputs per second."""
        return self.inputs / self.elapsed

    def quantile(self, share: float) -> float:
        """Return a quantile of the duration of a request in seconds."""
        return float(np.quantile(self.seconds, share))


def _text(rng: random.Random, words: int = 8) -> str:
    return " ".join(rng.choices(_WORDS, k=words))


def _captioned_image(rng: random.Random) -> list[Any]:
    buffer = io.BytesIO()
    Image.effect_noise((160, 120), rng.uniform(10, 90)).convert("RGB").save(buffer, "JPEG")
    image = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return [{"text": _text(rng), "image": image}]


SCENARIOS = {
    "texts": Scenario("one text of 8 words per request", 32, lambda rng: [_text(rng)]),
    "texts, 32 per request": Scenario("32 texts of 8 words", 4, lambda rng: [_text(rng) for _ in range(32)]),
    "captioned images": Scenario("one JPEG of 160 x 120 pixels with a caption of 8 words", 32, _captioned_image),
    "mixture": Scenario(
        f"one text of 8 words per request, while two other connections send {LONG_INPUTS} texts of {LONG_WORDS} words",
        8,
        lambda rng: [_text(rng)],
        long_connections=2,
    ),
}


async def run_scenario(address: str, name: str, seconds: float) -> Latencies:
    """Send requests for a while.

    Args:
        address: Base URL of the service.
        name: Name of the scenario.
        seconds: Duration.

    Returns:
        The measured requests.

    Raises:
        aiohttp.ClientResponseError: If a request fails.
    """
    scenario, found = SCENARIOS[name], Latencies()
    rng = random.Random(0)
    bodies = [_body(scenario.request(rng)) for _ in range(_BODIES)]
    long_bodies = [_body(_long_request(rng)) for _ in range(_BODIES)] if scenario.long_connections else []
    start = time.perf_counter()
    # aiohttp takes a fraction of the processor time of other clients, which the service needs
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, raise_for_status=True) as client:

        async def connection(number: int, choices: Sequence[_Body], measured: bool) -> None:
            chosen = itertools.islice(itertools.cycle(choices), number, None)
            while time.perf_counter() - start < seconds:
                body = next(chosen)
                sent = time.perf_counter()
                async with client.post(address + ROUTE, data=body.content, headers=_HEADERS) as response:
                    await response.read()
                if measured:
                    found.seconds.append(time.perf_counter() - sent)
                    found.inputs += body.inputs

        await asyncio.gather(
            *(connection(number, bodies, True) for number in range(scenario.connections)),
            *(connection(number, long_bodies, False) for number in range(scenario.long_connections)),
        )
    found.elapsed = time.perf_counter() - start
    return found


class _Body(NamedTuple):
    content: bytes
    inputs: int


def _body(inputs: list[Any]) -> _Body:
    request = {"model": "ciea", "input": inputs, "encoding_format": "base64"}
    return _Body(json.dumps(request).encode(), len(inputs))


def _long_request(rng: random.Random) -> list[Any]:
    return [_text(rng, LONG_WORDS) for _ in range(LONG_INPUTS)]


async def sample_memory(address: str, process: int, seconds: float) -> list[float]:
    """Run the mixture and captioned images in turn, and sample the memory of the service.

    Args:
        address: Base URL of the service.
        process: Id of its process.
        seconds: Duration.

    Returns:
        Resident memory in bytes after each interval.
    """
    samples = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for name in ("mixture", "captioned images"):
            await run_scenario(address, name, min(SAMPLE_SECONDS, seconds))
        samples.append(float(resident("RssAnon", process)))
    return samples
