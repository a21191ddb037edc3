"""The commands of ``ciea``, one module each.

A command module has a docstring (its long help), ``HELP`` (one line), ``add_arguments(parser)`` and
``run(arguments) -> int``, the exit status. At import time it needs the standard library only.
"""

from __future__ import annotations

COMMANDS = ("evaluate", "compare", "mteb", "search", "index", "encode", "convert", "push", "pull")
"""Names of the commands in the order of the help."""
