"""Train CIEA: `accelerate launch training/train.py --preset NAME [--OPTION VALUE ...]`."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from ciea_hf.reporting import error_line, user_errors
from ciea_hf.training.arguments import config_from_arguments
from ciea_hf.utils import limit_spinning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.training.config import TrainingConfig

DEBUG = "--debug"
FAILED = 2
INTERRUPTED = 130
PREEMPTED = 143  # the status that a shell reports for a process ended by SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as a command line specifies.

    Args:
        arguments: Arguments without the program's name; `sys.argv` if `None`.

    Returns:
        The exit status.
    """
    limit_spinning()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # it reports every file of every checkpoint
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(config_from_arguments(given))
    except KeyboardInterrupt:
        sys.stderr.write("train.py: interrupted; --resume continues from the last checkpoint\n")
        return INTERRUPTED
    except Exception as error:
        if DEBUG in given or not isinstance(error, user_errors()):
            raise
        sys.stderr.write(f"train.py: error: {error_line(error)}\n")
        return FAILED


def _run(config: TrainingConfig) -> int:
    from ciea_hf.training.run.preemption import Preempted  # late: `--help` needs no torch
    from ciea_hf.training.run.stages import run_stages

    try:
        run_stages(config)
    except Preempted as signal:
        sys.stderr.write(f"train.py: {signal}\n")
        return PREEMPTED
    return 0


def _disable_progress_bars() -> None:
    """Disable the bars of transformers, which show short file operations; the stages have their own."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


if __name__ == "__main__":
    if "--help" not in sys.argv and "-h" not in sys.argv:
        _disable_progress_bars()
    sys.exit(main())
