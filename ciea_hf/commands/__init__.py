"""The commands of `ciea`, one module each; a hyphen in a name is an underscore in that of the module.

A command module has a docstring (the description), `HELP` (one line), `EXAMPLES` (command lines with comments),
`add_arguments(parser)` and `run(arguments) -> int`, the exit status. It imports only the standard library and light
modules; everything else is imported by `run`. A command whose last positional argument takes any number of values names
it with `parser.set_defaults(rest=...)`, because argparse rejects values that follow an option.
"""

from __future__ import annotations

COMMANDS = (
    "evaluate",
    "compare",
    "mteb",
    "search",
    "explain",
    "index",
    "serve",
    "demo-app",
    "space",
    "encode",
    "mine",
    "convert",
    "data",
    "push",
    "pull",
)
"""Names of the commands in the order of the help."""
