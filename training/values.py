"""Conversion of values from YAML and the command line to the types of their options."""

from __future__ import annotations

from typing import Any, Literal, Union, get_args, get_origin

import yaml


def convert(name: str, kind: Any, value: Any) -> Any:
    """Convert a value from YAML or the command line to the type of its option.

    Args:
        name: Name of the option, for errors.
        kind: Type of the option: a scalar, a `Literal`, a tuple, or one of these or `None`.
        value: Value as written.

    Returns:
        The converted value.

    Raises:
        ValueError: If the value is not one of the choices, or a tuple has the wrong length.
        TypeError: If the value has the wrong type.
    """
    if get_origin(kind) in (Union, type(int | None)):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        chosen = {False: "no"}.get(value, value) if isinstance(value, bool) else value  # YAML parses `no` as false
        if chosen not in get_args(kind):
            raise ValueError(f"`{name}` must be one of {', '.join(get_args(kind))}; got {value!r}")
        return chosen
    if get_origin(kind) is tuple:
        return _sequence(name, get_args(kind), value)
    return _scalar(name, kind, value)


def _scalar(name: str, kind: type, value: Any) -> Any:
    if isinstance(value, str) and kind is not str:
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            read = value
        value = float(value) if isinstance(read, str) and kind is float and _is_number(value) else read  # 5e-6
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (kind is not bool and isinstance(value, bool)) or not isinstance(value, kind):
        raise TypeError(f"`{name}` must be of type {kind.__name__}; got {value!r}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sequence(name: str, kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else list(value)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(items) != len(kinds):
        raise ValueError(f"`{name}` takes {len(kinds)} values; got {value!r}")
    return tuple(_scalar(name, kind, item) for kind, item in zip(kinds, items, strict=True))


LORA_OPTIONS = {"r": int, "alpha": float, "dropout": float}


def lora_options(text: str) -> dict[str, float]:
    """Parse the value of `--lora`, such as `"r=16,alpha=32,dropout=0.05"`; every entry is optional.

    Raises:
        ValueError: If an entry is invalid.
    """
    options: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        if name not in LORA_OPTIONS or not _is_number(value):
            raise ValueError(f"`lora` takes {', '.join(f'{key}=NUMBER' for key in LORA_OPTIONS)}; got {text!r}")
        options[name] = LORA_OPTIONS[name](float(value))
    return options
