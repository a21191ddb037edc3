"""Outcomes of fuzz cases: accepted, refused with a clear error, or unclear."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLEAR = (ValueError, TypeError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
MAX_MESSAGE = 3000


def cases(few: int, seconds: int = 1) -> Iterator[tuple[int, random.Random]]:
    """Yield seeds with their random numbers: a few, or as many as the variable CIEA_FUZZ_CASES says.

    Args:
        few: Number of cases without the variable.
        seconds: Duration of a case, by which the number of the variable is divided.
    """
    chosen = os.environ.get("CIEA_FUZZ_CASES")
    for seed in range(few if chosen is None else max(1, int(chosen) // seconds)):
        yield seed, random.Random(seed)


def outcome(action: Callable[[], Any]) -> tuple[str, Any]:
    """Run a case.

    Returns:
        `"accepted"` and the result; `"clear"` and the message; or `"unclear"` and the error.
    """
    try:
        return "accepted", action()
    except CLEAR as error:
        message = str(error)
        return ("clear", message) if message and len(message) < MAX_MESSAGE else ("unclear", repr(error)[:500])
    except Exception as error:
        return "unclear", repr(error)[:500]


def mutated_bytes(content: bytes, random_numbers: random.Random) -> bytes:
    """Change bytes, cut them, or repeat a part of them."""
    data = bytearray(content)
    for _ in range(random_numbers.choice((1, 1, 2, 8))):
        kind = random_numbers.randrange(4)
        position = random_numbers.randrange(len(data) + 1)
        if kind == 0 and position < len(data):
            data[position] = random_numbers.randrange(256)
        elif kind == 1:
            data = data[:position]
        elif kind == 2:
            end = min(len(data), position + random_numbers.randrange(1, 40))
            data = data[:end] + data[position:]
        else:
            data[position:position] = random_numbers.choice((b"\xff", b"\n", b"\t", b'"', b"{", b"\0", b"NaN", b"-1"))
    return bytes(data)


NUMBERS = (-1, 0, 10**6, 10**30, 0.5, float("nan"), True)
TEXTS = ("", " ", "x", "../x", "/etc/passwd", "\ud83d", "http://127.0.0.1:9/x", "a\0b", "x" * 3000)
VALUES: tuple[Any, ...] = (None, *NUMBERS, *TEXTS, [], ["a", "b"], {}, {"a": 1})


def mutated_json(value: Any, random_numbers: random.Random) -> Any:
    """Replace, remove or add one value anywhere in a JSON value."""
    if isinstance(value, dict) and value and random_numbers.random() < 0.85:
        key = random_numbers.choice(list(value))
        if random_numbers.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutated_json(value[key], random_numbers)}
    if isinstance(value, list) and value and random_numbers.random() < 0.7:
        position = random_numbers.randrange(len(value))
        return [*value[:position], mutated_json(value[position], random_numbers), *value[position + 1 :]]
    return random_numbers.choice(VALUES)


class Tally:
    """Counts of outcomes, and descriptions of the unclear ones."""

    of_tests: ClassVar[dict[str, Counter[str]]] = {}
    """Counts by test, of which `conftest.py` makes the summary."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.unclear: list[str] = []
        self.of_tests[os.environ["PYTEST_CURRENT_TEST"].removesuffix(" (call)")] = self.counts

    def add(self, found: str, description: str) -> None:
        """Count an outcome."""
        self.counts[found] += 1
        if found == "unclear":
            self.unclear.append(description)

    def check(self) -> None:
        """Fail if an outcome is unclear, and show these; fail if no case was refused, or none was accepted."""
        assert not self.unclear, f"{dict(self.counts)}\n" + "\n".join(self.unclear[:20])
        assert self.counts["clear"], "no case was refused: the mutations are too weak"
        assert self.counts["accepted"], "no case was accepted: the mutations are too strong"
