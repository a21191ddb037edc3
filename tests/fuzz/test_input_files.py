"""Damaged input files of `ciea encode` and `ciea search`: one input per line, or an error that names file and line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.commands.inputs import read_items
from tests.fuzz.outcomes import VALUES, Tally, cases, mutated_bytes, mutated_json, outcome
from tests.support.helpers import toy_image

if TYPE_CHECKING:
    import random
    from pathlib import Path

ROWS: tuple[dict[str, Any], ...] = (
    {"id": "a", "text": "a red cat", "image": "one.png"}, {"_id": 7, "contents": "the house"}, {"image": "one.png"},
    {"title": "a cat", "text": "it is red"}, {"image": "one.png", "caption": "a boat", "year": 2020},
)  # fmt: skip


def random_lines(suffix: str, numbers: random.Random) -> bytes:
    if suffix == ".txt":
        return mutated_bytes("a red cat\n\nthe caf\u00e9\n\u732b\n".encode(), numbers)
    rows: list[Any] = list(numbers.sample(ROWS, 3))
    if numbers.random() < 0.5:
        rows[1] = numbers.choice((mutated_json(rows[1], numbers), numbers.choice(VALUES)))
        return "\n".join(map(json.dumps, rows)).encode()
    return mutated_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(), numbers)


def wrong_items(items: list[Any], lines: list[str], is_text: bool) -> str | None:
    """What is wrong with the inputs of a file; `None` if nothing is."""
    written = [line for line in lines if line.strip()]
    if len(items) != len(written):
        return f"{len(items)} inputs of {len(written)} lines"
    for item, line in zip(items, written, strict=True):
        row = {"text": line.strip()} if is_text else json.loads(line)
        texts = [row.get(name) for name in ("title", "text", "caption", "contents")]
        if any(isinstance(text, str) and text.strip() and text not in (item.text or "") for text in texts):
            return f"{item} lacks a text of {line}"
        if bool(row.get("image")) != (item.image is not None):
            return f"{item} has not the image of {line}"
    return None


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_inputs_are_read_or_named(tmp_path: Path, suffix: str) -> None:
    toy_image().save(tmp_path / "one.png")
    path = tmp_path / f"in{suffix}"
    tally = Tally()
    for seed, numbers in cases(150):
        path.write_bytes(random_lines(suffix, numbers))
        found, detail = outcome(lambda: list(read_items(str(path))))
        if found == "clear" and not detail.startswith(f"{path}"):
            found = "unclear"
        if found == "accepted":
            wrong = wrong_items(detail, path.read_bytes().decode("utf-8-sig").split("\n"), suffix == ".txt")
            found, detail = ("accepted", "") if wrong is None else ("unclear", wrong)
        tally.add(found, f"seed {seed}: {path.read_bytes()[:300]!r}: {detail}")
    tally.check()
