"""Random options of training: each command line is accepted as a sound configuration, or refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ciea_hf.training.arguments import config_as_dict, config_from_arguments, load_preset, preset_names
from ciea_hf.training.config import STAGES, TrainingConfig, options
from tests.fuzz.outcomes import Tally, cases

if TYPE_CHECKING:
    import random
    from pathlib import Path

CASES = 300
LONGEST_ERROR = 2500  # an unknown option lists all valid ones

NUMBERS = ("0", "1", "2", "7", "0.1", "0.5", "1e-3", "5e-6", "64", "100", "0.2", "1.0", "1e3")
ODD_NUMBERS = (
    "nan", "-nan", "inf", "-inf", "infinity", "1e38", "1e39", "1e400", "-1", "-0.0", "1e-400", "010", "0x10", "1_000",
    "1:30", "9" * 30, "9" * 5000, "2147483648", "4294967296", "18446744073709551616", "-9223372036854775809", "٣",
    "1,5", "5-6", "1e", "--1", "+1", " 3 ", "3.0", "1e3", "true", "True", "half",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "none", "None", "null", "~", "yes", "no", "[", "{", "[1", "{a: 1}", "[1, 2]", "a/b", "a/b/c", "../x",
    "/dev/null", "x\0y", "caf\u00e9", "\udcff", "\ud83d", "\u202e", "\x1b[31m", "a\nb", "x" * 5000,
    "!!python/object:os.x", "&a [*a]", "2024-01-01", "in_batch", "all", "align,align", ",", "in_batch,,", "r=4", "r=0",
    "r=nan", "r=1e400", "alpha=inf", "dropout=1", "r=4,r=8", "=", "0.9,0.98", "0.9,1", "0,100", "100,0", "500,600",
    "-1,5", "0,1,2", "nan,nan", "vision,text", "tower", "tensorboard", "wandb", "--", "-", "-1", "'", '"', "%s", "{}",
    "${HOME}", "*",
)  # fmt: skip
SOUND = {
    "stage": ("in_batch", "all", "align,in_batch", "warm_up"), "freeze": ("vision", "vision,text", ""),
    "adam_betas": ("0.9,0.98",), "mine_window": ("0,100", "10,60"), "lora": ("r=4", "none"),
    "resume": ("true", "false"), "content": ("full", "caption"), "trackers": ("none", "auto"),
    "push_to_hub": ("me/mine",),
}  # fmt: skip
SPELLINGS = (
    "--{}",
    "--{}=",
    "--in_batch.{}",
    "--hard-negatives.{}=",
    "--mine.{}",
    "--nothing.{}",
    "-{}",
    "{}",
    "--no-{}",
)


def random_value(rng: random.Random, name: str) -> str:
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(SOUND.get(name, NUMBERS))
    if kind < 0.65:
        return rng.choice(ODD_NUMBERS)
    if kind < 0.9:
        return rng.choice(ODD_TEXTS)
    return "".join(
        chr(rng.choice((rng.randrange(32, 127), rng.randrange(1, 0x800)))) for _ in range(rng.randrange(1, 9))
    )


def random_arguments(rng: random.Random) -> list[str]:
    """A command line of one to three options, most of them spelled rightly."""
    arguments: list[str] = []
    if rng.random() < 0.3:
        arguments += ["--preset", rng.choice([*preset_names(), *ODD_TEXTS])]
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(options()))
        spelling = rng.choice(SPELLINGS) if rng.random() < 0.4 else "--{}"
        written = name.replace("_", rng.choice("-_")) if rng.random() < 0.95 else name[:-1]
        value = random_value(rng, name)
        option = spelling.format(written)
        if option.endswith("="):
            arguments.append(option + value)
        else:
            arguments += [option] if rng.random() < 0.05 else [option, value]
    return arguments


def random_preset(rng: random.Random) -> bytes:
    """A preset file: values of any type under known and unknown names, or broken text."""
    if rng.random() < 0.15:
        text = rng.choice(
            ["[" * 20_000, "a: &a [*a]", "!!int ''", "!!bool x", "!!timestamp x", "- a", "3", "a: b: c", "\t", "\ufeff"]
        )
        return rng.choice([text.encode(), b"\xff\xfe", b"a: \x80", text.encode("utf-16")])
    if rng.random() < 0.3:  # a preset of the package with one value changed
        packaged = config_as_dict(load_preset(rng.choice(preset_names())))
        changed = rng.choice(list(packaged))
        return yaml.safe_dump({**packaged, changed: random_value(rng, changed)}).encode()
    odd = [None, True, False, 3, -1, 0.5, math.nan, math.inf, 10**400, [], [1], {}, {"a": 1}, "", "x", [[1]], {1: 2}]
    content: dict[Any, Any] = {}
    for _ in range(rng.randint(1, 2)):
        name: Any = rng.choice([*options(), "lambda", "nothing", 3, None, True])
        content[name] = rng.choice(odd)
    if rng.random() < 0.4:
        stage = rng.choice([*STAGES, "nothing", 1, None])
        content["stages"] = {stage: rng.choice([{rng.choice(list(options())): rng.choice(odd)}, None, 3, [], {1: 2}])}
    return yaml.safe_dump(content).encode()


def unsound(config: TrainingConfig) -> str | None:
    """What is wrong with a configuration that was accepted; `None` if nothing is."""
    for stage in (config, *(config.for_stage(name) for name in config.stage_names)):
        for name, value in vars(stage).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    return f"{name} is {number}"
                if isinstance(number, int) and not -(2**31) < number < 2**31:
                    return f"{name} is {number}"
        if not 0 <= stage.mine_window[0] < min(stage.mine_window[1], stage.mine_depth):
            return f"mine_window is {stage.mine_window}"
    written = config_as_dict(config)
    json.dumps(written).encode()
    again = yaml.safe_load(yaml.safe_dump(written))
    return None if again == json.loads(json.dumps(written)) else "the configuration does not survive YAML"


def judge(make: Any, words: list[str]) -> tuple[str, str]:
    """Return `accepted`, `clear` or `unclear`, and why.

    An error is clear if it is one line of limited length that names an option, the file or what was written.
    """
    try:
        config = make()
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if type(error) not in (ValueError, TypeError, FileNotFoundError):
            return "unclear", f"{type(error).__name__}: {message[:200]}"
        names = [f"`{name}`" for name in (*options(), "stages")]
        named = any(name in message for name in [*names, "unknown option", "begins with --", "argument -", "preset"])
        named = named or any(word and word in message for word in words)
        if "\n" in message or len(message) > LONGEST_ERROR or not named:
            return "unclear", message[:300]
        return "clear", message
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {str(error)[:200]}"
    wrong = unsound(config)
    return ("accepted", "") if wrong is None else ("unclear", wrong)


def test_command_lines_are_accepted_or_refused_by_name() -> None:
    tally = Tally()
    for _, rng in cases(CASES):
        arguments = random_arguments(rng)
        verdict, why = judge(lambda given=arguments: config_from_arguments(given), [])
        tally.add(verdict, f"{[argument[:60] for argument in arguments]}: {why}")
    tally.check()


def test_presets_are_accepted_or_refused_by_name(tmp_path: Path) -> None:
    tally = Tally()
    path = tmp_path / "mine.yaml"
    for _, rng in cases(CASES):
        content = random_preset(rng)
        path.write_bytes(content)
        verdict, why = judge(lambda: load_preset(str(path)), [str(path)])
        tally.add(verdict, f"{content[:200]!r}: {why}")
    tally.check()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
def test_no_number_of_a_configuration_is_unbounded(value: float) -> None:
    default = TrainingConfig()
    for entry in dataclasses.fields(TrainingConfig):
        if not isinstance(getattr(default, entry.name), float) and "float" not in str(entry.type):
            continue
        if entry.name == "max_grad_norm" and math.isfinite(value):
            continue  # a limit that is never reached
        given: Any = (value, value) if "tuple" in str(entry.type) else value
        with pytest.raises(ValueError, match=f"`{entry.name}` must be"):
            dataclasses.replace(default, **{entry.name: given})
