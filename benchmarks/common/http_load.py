"""Load on an embedding service: connections that each send their next request when they have the response."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.common.memory import resident

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTE = "/v1/embeddings"
LONG_INPUTS, LONG_WORDS = 64, 80
SAMPLE_SECONDS = 2.0
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
    "captioned images": Scenario("one JPEG of 160 x 120 pixels with a caption of 8 words", 16, _captioned_image),
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
        httpx.HTTPStatusError: If a request fails.
    """
    scenario, found = SCENARIOS[name], Latencies()
    start = time.perf_counter()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:

        async def connection(number: int, build: Callable[[random.Random], list[Any]], measured: bool) -> None:
            rng = random.Random(number)
            while time.perf_counter() - start < seconds:
                inputs = build(rng)
                sent = time.perf_counter()
                response = await client.post(
                    ROUTE, json={"model": "ciea", "input": inputs, "encoding_format": "base64"}
                )
                response.raise_for_status()
                if measured:
                    found.seconds.append(time.perf_counter() - sent)
                    found.inputs += len(inputs)

        await asyncio.gather(
            *(connection(number, scenario.request, True) for number in range(scenario.connections)),
            *(connection(-1 - number, _long_request, False) for number in range(scenario.long_connections)),
        )
    found.elapsed = time.perf_counter() - start
    return found


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
