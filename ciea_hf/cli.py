"""The command line: ``ciea COMMAND ...``. Parses, calls, and turns users' errors into one line.

Each command is a module of :mod:`ciea_hf.commands`; what it needs beyond argparse it imports when it runs, so that
``ciea --help`` is immediate.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING

from ciea_hf._version import __version__
from ciea_hf.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 2
INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command registered."""
    parser = argparse.ArgumentParser(prog="ciea", description="Dense retrieval over text and captioned images.")
    parser.add_argument("--version", action="version", version=f"ciea {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--verbose", action="store_true", help="log what is being done")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"ciea_hf.commands.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` if None.

    Returns:
        The exit status: what the command says (0 for success), 2 for an error of the user, 130 when interrupted.
    """
    parsed = _parse(build_parser(), arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        sys.stderr.write("ciea: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        if parsed.debug:
            raise
        sys.stderr.write(f"ciea: error: {_one_line(error)}\n")
        return FAILED
    return status


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, with the values of a command's last positional argument before, between or after its options."""
    parsed, rest = parser.parse_known_args(arguments)
    name: str = getattr(parsed, "rest", "")
    if rest and (not name or any(text.startswith("-") and text != "-" for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        setattr(parsed, name, getattr(parsed, name) + rest)
    return parsed


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
