"""Texts for a terminal: control characters are escaped, and an error is one line."""

from __future__ import annotations

import sys
import unicodedata

HIDDEN = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of control characters, halves of pairs, and line separators
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # change the direction of writing
LONGEST = 2000
"""Characters of an error that are shown."""


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Return a text in which control characters, other than those to keep, are escapes such as `\\x1b`."""
    return "".join(
        character
        if character in keep or not (unicodedata.category(character) in HIDDEN or character in TURNING)
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def user_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a user's input, files or disk cause; others are faults of this package."""
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError)
    library = sys.modules.get("safetensors")  # an error of a library can only come from one that is loaded
    return errors if library is None else (*errors, library.SafetensorError)


def error_line(error: BaseException) -> str:
    """Return the message of an error as one line that a terminal can show; the name of its class if it has none."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # `mkdir` reports a file in the place of a folder as an existing file
        reason = "exists and is not a folder" if isinstance(error, FileExistsError) else error.strerror
        text = f"{error.filename}: {reason}"
    line = printable(" ".join(text.split()), keep="") or type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
