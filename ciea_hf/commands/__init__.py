"""The commands of ``ciea``, one module each.

A command module has a docstring (its long help), ``HELP`` (one line), ``add_arguments(parser)`` and
``run(arguments) -> int``, the exit status. At import time it needs the standard library only. A command whose last
positional argument takes any number of values names it with ``parser.set_defaults(rest=...)``: argparse alone refuses
values that follow an option.
"""

from __future__ import annotations

COMMANDS = ("evaluate", "compare", "mteb", "search", "index", "encode", "mine", "convert", "data", "push", "pull")
"""Names of the commands in the order of the help."""
