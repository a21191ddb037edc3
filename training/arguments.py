"""Presets and the command line of training."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

import yaml

from ciea_hf.training.config import STAGES, TrainingConfig, option_types, options, updated
from ciea_hf.training.option import ALIASES, canonical_name
from ciea_hf.training.values import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """examples:
  accelerate launch training/train.py --preset demo --output-dir runs/ciea
  accelerate launch training/train.py --preset webqa_multi --stage in_batch --lambda 0.2 --resume
  accelerate launch training/train.py --preset webqa_multi --stage all --hard_negatives.max-steps 500
"""


YAML_CRASHES = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)  # odd tags


def preset_names() -> list[str]:
    """Return the names of the presets in the package."""
    folder = resources.files("ciea_hf.training") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> TrainingConfig:
    """Load a preset.

    Args:
        name: One of [`preset_names`], or the path of a YAML file.

    Returns:
        The configuration.

    Raises:
        FileNotFoundError: If the preset does not exist; the message lists the valid ones.
        ValueError: If the file cannot be read, or contains an unknown option.
    """
    if name in preset_names():
        content = (resources.files("ciea_hf.training") / "presets" / f"{name}.yaml").read_bytes()
    elif _is_file(name):
        content = Path(name).read_bytes()
    else:
        raise FileNotFoundError(f"preset or file {shown(name)} not found; presets: {', '.join(preset_names())}")
    try:
        values = yaml.safe_load(content.decode("utf-8")) or {}
    except (yaml.YAMLError, *YAML_CRASHES) as error:
        raise ValueError(f"{name}: invalid YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{name}: must map options to values; got a {type(values).__name__}")  # noqa: TRY004
    try:
        return updated(TrainingConfig(), values)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # longer than a path can be, or with a null character
        return False


def config_from_arguments(arguments: Sequence[str]) -> TrainingConfig:
    """Parse a command line: `--preset NAME --OPTION VALUE --STAGE.OPTION VALUE`.

    An option without a stage takes precedence over the preset's values of single stages.

    Args:
        arguments: Arguments without the program's name.

    Returns:
        The resolved configuration.

    Raises:
        ValueError: If an option or a value is invalid.
    """
    staged, rest = _split_stages([_dashed(argument) for argument in arguments])
    known, unknown = build_parser().parse_known_args(rest)
    if unknown:
        if not unknown[0].startswith("--"):
            raise ValueError(f"expected an option that begins with --; got {shown(unknown[0])}")
        canonical_name(unknown[0].partition("=")[0].removeprefix("--"), options())
    common = vars(known)
    preset = common.pop("preset")
    common.pop("debug")  # read by the entry point
    config = load_preset(preset) if preset else TrainingConfig()
    stages: dict[str, dict[str, Any]] = {}
    for stage in {**config.stages, **staged}:
        own = {
            name: v for name, v in config.stages.get(stage, {}).items() if canonical_name(name, options()) not in common
        }
        stages[stage] = own | staged.get(stage, {})
    return updated(config, common, stages)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of `training/train.py` from the fields of [`TrainingConfig`], grouped by topic."""
    parser = _Parser(
        prog="training/train.py",
        usage="training/train.py [--preset NAME] [--OPTION VALUE ...] [--STAGE.OPTION VALUE ...]",
        description="Train CIEA. Options override the preset; --STAGE.OPTION VALUE sets an option for one stage.",
        epilog=EXAMPLES,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=34),
        allow_abbrev=False,
    )
    parser.add_argument("--preset", metavar="NAME", help=f"{', '.join(preset_names())}, or a YAML file")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    defaults, hints = TrainingConfig(), option_types()
    groups: dict[str, Any] = {}
    for name, option in options().items():
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        names = [alias for alias, field in ALIASES.items() if field == name] + [name]
        switch: dict[str, Any] = (
            {"nargs": "?", "const": "true"} if bool in (hints[name], *get_args(hints[name])) else {}
        )
        groups[option.group].add_argument(
            *(_dashed(f"--{name}") for name in names),
            **switch,
            dest=name,
            default=argparse.SUPPRESS,
            metavar=_metavar(hints[name]),
            help=option.help + _default(getattr(defaults, name)),
        )
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _dashed(argument: str) -> str:
    """Write the name in `--OPTION=VALUE` or `--STAGE.OPTION=VALUE` with dashes; return other arguments unchanged."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _metavar(kind: Any) -> str:
    """Return the choices of an option, or its type."""
    members = [member for member in get_args(kind) if member is not type(None)] if type(None) in get_args(kind) else []
    kind = members[0] if members else kind
    optional = ["none"] if members else []
    if get_origin(kind) is Literal:
        return "{" + ",".join([*get_args(kind), *optional]) + "}"
    if kind is bool:
        return "{" + ",".join(["true", "false", *optional]) + "}"
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return "A,B,..." if Ellipsis in kinds else "A,B"
    return {int: "N", float: "X"}.get(kind, "VALUE")


def _default(value: Any) -> str:
    if value is None or value == "" or isinstance(value, dict):
        return ""
    written = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
    return f" (default: {written})"


def _split_stages(arguments: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Separate `--STAGE.OPTION VALUE` and `--STAGE.OPTION=VALUE` from the other arguments."""
    staged: dict[str, dict[str, Any]] = {}
    others: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or "." not in name:
            others.append(argument)
            continue
        stage, _, option = name.removeprefix("--").partition(".")
        if not equals:
            is_switch = not remaining or remaining[0].startswith("--")
            value = "true" if is_switch else remaining.pop(0)
        staged.setdefault(canonical_name(stage, STAGES), {})[canonical_name(option, options())] = value
    return staged, others


def config_as_dict(config: TrainingConfig) -> dict[str, Any]:
    """Return a configuration as plain values for YAML, with the paper's names."""
    names = {name: alias for alias, name in ALIASES.items()}
    values = dataclasses.asdict(config)
    return {names.get(name, name): list(value) if isinstance(value, tuple) else value for name, value in values.items()}
