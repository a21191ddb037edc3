"""Presets and the command line of training."""

from __future__ import annotations

import argparse
import dataclasses
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ciea_hf.training.config import ALIASES, STAGES, TrainingConfig, canonical_name, option_help, updated

if TYPE_CHECKING:
    from collections.abc import Sequence


def preset_names() -> list[str]:
    """Names of the presets that the package brings."""
    folder = resources.files("ciea_hf.training") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> TrainingConfig:
    """Load a preset.

    Args:
        name: One of :func:`preset_names`, or the path of a YAML file.

    Returns:
        The configuration it stands for.

    Raises:
        FileNotFoundError: If there is no such preset; the message lists them.
        ValueError: If the file cannot be read, or holds an unknown option.
    """
    if name in preset_names():
        text = (resources.files("ciea_hf.training") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(f"no preset or file {name!r}; presets: {', '.join(preset_names())}")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{name}: expected options and their values, found a {type(values).__name__}")  # noqa: TRY004
    return updated(TrainingConfig(), values)


def config_from_arguments(arguments: Sequence[str]) -> TrainingConfig:
    """Read a command line: ``--preset NAME --OPTION VALUE --STAGE.OPTION VALUE``.

    An option without a stage wins over what the preset says for single stages.

    Args:
        arguments: Without the program's name.

    Returns:
        The resolved configuration.

    Raises:
        ValueError: If an option is unknown or lacks its value.
    """
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    config = load_preset(known.preset) if known.preset else TrainingConfig()
    common, staged = _split_arguments(rest)
    stages = {
        stage: {name: value for name, value in values.items() if canonical_name(name) not in common}
        for stage, values in config.stages.items()
    }
    for stage, values in staged.items():
        stages[stage] = {**stages.get(stage, {}), **values}
    return updated(dataclasses.replace(config, stages=stages), common)


def _parser() -> argparse.ArgumentParser:
    defaults = config_as_dict(TrainingConfig())
    names = {name: alias for alias, name in ALIASES.items()}
    lines = [
        f"  --{names.get(name, name).replace('_', '-'):<28}{text}{_shown_default(defaults[names.get(name, name)])}"
        for name, text in option_help().items()
    ]
    parser = argparse.ArgumentParser(
        prog="training/train.py",
        description="Train CIEA. Every option below can follow --preset, and --STAGE.OPTION sets it for one stage.",
        epilog="options:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", help=f"{', '.join(preset_names())}, or a YAML file")
    return parser


def _shown_default(value: Any) -> str:
    if value is None or value == "" or isinstance(value, dict):
        return ""
    written = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
    return f" (default: {written})"


def _split_arguments(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Sort ``--name value`` and ``--name=value`` into common options and those of single stages."""
    common: dict[str, Any] = {}
    staged: dict[str, dict[str, Any]] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ValueError(f"expected an option that begins with --; got {name!r}")
        if not equals:
            takes_none = not rest or rest[0].startswith("--")
            value = "true" if takes_none else rest.pop(0)  # a switch such as --resume
        stage, dot, option = name.removeprefix("--").rpartition(".")
        target = common
        if dot:
            stage = canonical_name(stage, STAGES)
            target = staged.setdefault(stage, {})
        target[canonical_name(option)] = value
    return common, staged


def config_as_dict(config: TrainingConfig) -> dict[str, Any]:
    """Return a configuration as plain values that YAML can write, aliases used."""
    names = {name: alias for alias, name in ALIASES.items()}
    values = dataclasses.asdict(config)
    return {names.get(k, k): list(v) if isinstance(v, tuple) else v for k, v in values.items()}
