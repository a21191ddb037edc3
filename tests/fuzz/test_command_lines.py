"""Random arguments of all commands: they run, or end with one line that names what is wrong; never with a traceback."""

from __future__ import annotations

import contextlib
import io
import shutil
from typing import TYPE_CHECKING

from ciea_hf.cli import build_parser, main, subparsers
from tests.fuzz.outcomes import TEXTS, Tally, cases
from tests.support.helpers import toy_image

if TYPE_CHECKING:
    import argparse
    import random
    from pathlib import Path

    import pytest

STARTING = ("ciea serve", "ciea pull")  # they serve for ever, or ask the Hub: only their parsers are tried
NUMBERS = ("0", "1", "2", "7", "100", "-1", "0.5", "nan", "inf", "1e400", "9" * 5000, "010", "\u0663", "1_000", "")
ODD = tuple(text for text in TEXTS if "\0" not in text)  # no system passes a null character


def words(actions: list[argparse.Action], numbers: random.Random, values: list[str]) -> list[str]:
    """Random values of some arguments of a command; positional ones are always given.

    In half of the cases all values but those of one argument are valid.
    """
    chosen: list[str] = []
    odd = numbers.choice(actions).dest if numbers.random() < 0.5 else None
    for action in actions:
        if action.dest in ("help", "debug", "verbose", "device", "engine", "uri", "index", "push", "token", "revision"):
            continue
        likely = 1.0 if not action.option_strings or action.required else 0.15
        if numbers.random() > likely:
            continue
        count = action.nargs if isinstance(action.nargs, int) else numbers.choice((1, 1, 2)) if action.nargs else 1
        is_valid = odd is not None and action.dest != odd
        given = [(valid_value if is_valid else value_of)(action, numbers, values) for _ in range(count)]
        if action.nargs == 0:
            given = []
        chosen += [*action.option_strings[:1], *given]
    return chosen


def value_of(action: argparse.Action, numbers: random.Random, values: list[str]) -> str:
    kind = numbers.random()
    if action.choices and kind < 0.8:
        return numbers.choice([str(choice) for choice in action.choices])
    if action.dest == "model" and kind < 0.7:
        return values[0]
    if action.dest in ("dataset", "path", "qrels") and kind < 0.7:
        return values[1]
    if action.type is not None and "Path" not in str(action.type) and kind < 0.8:
        return numbers.choice(NUMBERS)
    return numbers.choice([*values, *ODD])


VALID = {
    "text": "a cat", "image": "a.png", "queries": "a.txt", "query_id": "q-pic", "split": "test", "runs": "a.run",
    "run_a": "a.run", "run_b": "a.run", "where": "kind=text", "filter": '{"kind": "text"}', "inputs": "a.jsonl",
}  # fmt: skip


def valid_value(action: argparse.Action, numbers: random.Random, values: list[str]) -> str:
    """A value of an argument that is usually valid."""
    if action.choices:
        return numbers.choice([str(choice) for choice in action.choices])
    if action.dest == "model":
        return values[0]
    if action.dest in ("dataset", "path", "qrels"):
        return values[1]
    if action.dest in VALID:
        return VALID[action.dest]
    if action.type is not None and "Path" not in str(action.type):
        return numbers.choice(("1", "2", "8"))
    return {"contact_sheet": "new.png", "embeddings": "new"}.get(
        action.dest, "o.npy" if action.dest == "output" else "new"
    )


def ran(arguments: list[str]) -> tuple[int | str, str]:
    """Status and standard error of a command, or its traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return main(arguments), err.getvalue()
        except SystemExit as stop:
            return str(stop.code), err.getvalue()
        except Exception as error:
            return "traceback", repr(error)


def test_arguments_are_used_or_named(model: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # a name may be that of a Hub repository
    monkeypatch.chdir(tmp_path)
    commands = [parser for parser in subparsers(build_parser()) if not subparsers(parser)]
    commands = [parser for parser in commands if parser.prog not in STARTING]
    assert main(["index", model, dataset, "--output", "sound"]) == 0
    tally = Tally()
    for seed, numbers in cases(25):
        work = tmp_path / f"case-{seed}"
        shutil.copytree(tmp_path / "sound", work / "index")
        monkeypatch.chdir(work)
        toy_image().save("a.png")
        (work / "a.txt").write_text("a red cat\n")
        (work / "a.jsonl").write_text('{"text": "a red cat", "image": "a.png"}\n')
        (work / "a.run").write_text("q-pic Q0 img-red 1 0.5 x\n")
        (work / "a.qrels").write_text("q-pic 0 img-red 1\n")
        files = [
            "a.png",
            "a.txt",
            "a.jsonl",
            "a.run",
            "a.qrels",
            "index",
            "new",
            "new/deep",
            "o.npy",
            "o.safetensors",
            "/dev/null",
        ]
        parser = numbers.choice(commands)
        arguments = [*parser.prog.split()[1:], *words(parser._actions, numbers, [model, dataset, *files])]
        status, error = ran(arguments)
        last = error.strip().splitlines()[-1] if error.strip() else ""
        of_a_command = status == 2 and len(last.removeprefix("ciea: error: ")) in range(5, len(last))
        of_the_parser = status == "2" and "error: " in last
        if status in (0, "0") or (status == 1 and parser.prog == "ciea data check"):  # 1: training cannot run
            found = "accepted"
        elif of_a_command or of_the_parser:
            found = "clear"
        else:
            found = "unclear"
        tally.add(found, f"seed {seed}: {[argument[:60] for argument in arguments]}: {status} {error[-300:]}")
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(work)
    tally.check()
