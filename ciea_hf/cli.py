"""The command line `ciea COMMAND ...`: parses, calls, and reports invalid input in one line.

Each command is a module of `ciea_hf.commands`, whose heavy imports wait until it runs, so that `ciea --help` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf._version import __version__
from ciea_hf.commands import COMMANDS
from ciea_hf.commands.common import describe
from ciea_hf.reporting import error_line, user_errors
from ciea_hf.utils import limit_spinning

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 2
INTERRUPTED = 130
SHELLS = ("bash", "zsh", "tcsh")
EXAMPLES = """
  ciea search demo/ciea demo "a cat and a train"
  ciea evaluate demo/ciea demo --output results.json
  ciea search --help
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = argparse.ArgumentParser(prog="ciea")
    describe(parser, "Dense retrieval over text and captioned images.", EXAMPLES)
    parser.add_argument("--version", action="version", version=f"ciea {__version__}")
    parser.add_argument("--print-completion", choices=SHELLS, action=_PrintCompletion, help="print a completion script")
    _add_logging_arguments(parser, default=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"ciea_hf.commands.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=module.HELP)
        describe(command, module.__doc__ or "", module.EXAMPLES)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    for command in subparsers(parser):
        _add_logging_arguments(command, default=argparse.SUPPRESS)
    return parser


def subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands and of their actions."""
    found: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += [command, *subparsers(command)]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line without the program's name; `sys.argv` if `None`.

    Returns:
        The exit status: that of the command (0 for success), 2 for invalid input, 130 if interrupted.
    """
    if sys.stderr is None:  # closed by the caller; libraries write to it, too
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (used until the process ends)
    if sys.stdout is None:
        sys.stderr.write("ciea: error: standard output is closed: redirect it to a file, or to /dev/null\n")
        return FAILED
    limit_spinning()
    parsed = _parse(build_parser(), arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        sys.stderr.write("ciea: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if parsed.debug or not isinstance(error, user_errors()):
            raise
        sys.stderr.write(f"ciea: error: {error_line(error)}\n")
        return FAILED
    return status


def _add_logging_arguments(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")
    parser.add_argument("--verbose", action="store_true", default=default, help="log each step")


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, with the values of a command's last positional argument before, between or after its options."""
    parsed, rest = parser.parse_known_args(arguments)
    name: str = getattr(parsed, "rest", "")
    if rest and (not name or any(text.startswith("-") and text != "-" for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        setattr(parsed, name, getattr(parsed, name) + rest)
    return parsed


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:  # noqa: ARG002
        from ciea_hf.utils import import_optional

        try:
            script = import_optional("shtab", extra="completion").complete(parser, values)
        except ImportError as error:
            parser.error(str(error))
        sys.stdout.write(script + "\n")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
