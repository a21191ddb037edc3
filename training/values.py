"""Conversion of values from YAML and the command line to the types of their options."""

from __future__ import annotations

import math
from typing import Any, Literal, Union, get_args, get_origin

SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SHOWN = 80  # characters of a value in an error


def convert(name: str, kind: Any, value: Any) -> Any:
    """Convert a value from YAML or the command line to the type of its option.

    Args:
        name: Name of the option, for errors.
        kind: Type of the option: a scalar, a `Literal`, a tuple, or one of these or `None`.
        value: Value as written.

    Returns:
        The converted value.

    Raises:
        ValueError: If the value is not one of the choices, a number is not finite, or a tuple has the wrong length.
        TypeError: If the value has the wrong type.
    """
    if get_origin(kind) in (Union, type(int | None)):
        if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null", "")):
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        chosen = {False: "no"}.get(value, value) if isinstance(value, bool) else value  # YAML parses `no` as false
        if chosen not in get_args(kind):
            raise ValueError(f"`{name}` must be one of {', '.join(get_args(kind))}; got {shown(value)}")
        return chosen
    if get_origin(kind) is tuple:
        return _sequence(name, get_args(kind), value)
    return _scalar(name, kind, value)


def check_finite(name: str, value: Any) -> None:
    """Check that a number, or each number of a tuple, is finite.

    Raises:
        ValueError: If one is not.
    """
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"`{name}` must be a finite number; got {item}")


def check_window(name: str, window: tuple[int, int], depth_name: str, depth: int) -> None:
    """Check a range of ranks from which negatives are drawn.

    Args:
        name: Name of the range, for errors.
        window: First rank, from 0, and the rank after the last.
        depth_name: Name of the depth, for errors.
        depth: Number of documents that are ranked.

    Raises:
        ValueError: If the range is empty or begins behind the last document.
    """
    start, end = window
    if not 0 <= start < end:
        raise ValueError(f"`{name}` must be two ranks START END with 0 <= START < END; got {window}")
    if start >= depth:
        raise ValueError(f"`{name}` must begin before rank {depth}, the `{depth_name}`; got {window}")


def shown(value: Any) -> str:
    """Return a value as it appears in an error: its repr, of limited length."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _scalar(name: str, kind: type, value: Any) -> Any:
    if isinstance(value, str):
        value = _text(name, value) if kind is str else _parsed(kind, value)
    try:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
    except OverflowError:
        value = math.inf
    if (kind is not bool and isinstance(value, bool)) or not isinstance(value, kind):
        raise TypeError(f"`{name}` must be of type {kind.__name__}; got {shown(value)}")
    check_finite(name, value)
    return value


def _parsed(kind: type, text: str) -> Any:
    """Parse a number or a switch as Python writes it; return the text if it is neither."""
    try:
        if kind is bool:
            return SWITCHES.get(text.strip().lower(), text)
        return kind(text)
    except ValueError:
        return text


def _text(name: str, text: str) -> str:
    if "\0" in text:
        raise ValueError(f"`{name}` must not contain a null character; got {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` must be valid UTF-8; got {shown(text)}") from error
    return text


def _sequence(name: str, kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        items = [item.strip() for item in value.split(",") if item.strip()]
    elif isinstance(value, list | tuple):
        items = list(value)
    else:
        raise TypeError(f"`{name}` must be a list, or values separated by commas; got {shown(value)}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(items) != len(kinds):
        raise ValueError(f"`{name}` takes {len(kinds)} values; got {shown(value)}")
    return tuple(_scalar(name, kind, item) for kind, item in zip(kinds, items, strict=True))


LORA_OPTIONS = {"r": "a positive integer", "alpha": "a positive number", "dropout": "at least 0 and below 1"}


def lora_options(text: str) -> dict[str, float]:
    """Parse the value of `--lora`, such as `"r=16,alpha=32,dropout=0.05"`; every entry is optional.

    Raises:
        ValueError: If an entry is invalid.
    """
    options: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, written = item.partition("=")
        try:
            value = float(written)
        except ValueError:
            value = math.nan
        if name not in LORA_OPTIONS or math.isnan(value):
            raise ValueError(f"`lora` takes {', '.join(f'{key}=NUMBER' for key in LORA_OPTIONS)}; got {shown(text)}")
        valid = {"r": value >= 1 and value.is_integer(), "alpha": value > 0, "dropout": 0 <= value < 1}
        if not valid[name] or not math.isfinite(value):
            raise ValueError(f"`lora`: {name} must be {LORA_OPTIONS[name]}; got {shown(text)}")
        options[name] = int(value) if name == "r" else value
    return options
