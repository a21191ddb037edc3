"""Errors that name the place of the input that caused them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SHOWN = 80  # characters of a user's value in an error message


def with_place(error: Exception, place: str) -> Exception:
    """Return an error of the same class whose message starts with a place, such as `input 7`.

    The class's constructor is not called, because it may take other arguments than a message. A class that does not
    show its message as it is, such as `UnicodeDecodeError` or `KeyError`, is replaced by its nearest base class that
    does.

    Args:
        error: The original error.
        place: The place: an input, a document, or a file and a line.

    Returns:
        The new error, with the attributes of the original one.
    """
    message = f"{place}: {describe(error)}"
    for cls in type(error).__mro__:
        if not issubclass(cls, Exception):
            break
        try:
            located: Exception = cls.__new__(cls, message)
            located.__dict__.update(error.__dict__)
            located.args = (message,)
            if str(located) == message:
                return located
        except Exception:  # noqa: S112 (a class with a constructor or `__str__` of its own: try its base)
            continue
    return ValueError(message)


@contextmanager
def place(name: str) -> Iterator[None]:
    """Add a place to any error that is raised within a `with` block."""
    try:
        yield
    except Exception as error:
        raise with_place(error, name) from error


def describe(error: BaseException) -> str:
    """Return the message of an error, or the name of its class if it has none."""
    return str(error) or type(error).__name__


def shorten(value: object) -> str:
    """Return the representation of a value for an error message, cut after `MAX_SHOWN` characters."""
    text = value if isinstance(value, str) else repr(value)
    shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return repr(shown) if isinstance(value, str) else shown
