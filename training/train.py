"""Trains CIEA: ``accelerate launch training/train.py --preset NAME [--OPTION VALUE ...]``."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from transformers.utils.logging import disable_progress_bar

from ciea_hf.training.arguments import config_from_arguments
from ciea_hf.training.run.preemption import Preempted
from ciea_hf.training.run.stages import run_stages

if TYPE_CHECKING:
    from collections.abc import Sequence

PREEMPTED = 143  # what a shell reports of a process that SIGTERM ended
FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as a command line says.

    Args:
        arguments: Without the program's name; ``sys.argv`` if None.

    Returns:
        The exit status.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # it reports every file of every checkpoint
    try:
        run_stages(config_from_arguments(sys.argv[1:] if arguments is None else arguments))
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        sys.stderr.write(f"train.py: error: {error}\n")
        return FAILED
    except Preempted as order:
        sys.stderr.write(f"train.py: {order}\n")
        return PREEMPTED
    except KeyboardInterrupt:
        sys.stderr.write("train.py: interrupted; --resume goes on from the last checkpoint\n")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    disable_progress_bar()  # transformers' own, for files of a moment; the stages have theirs
    sys.exit(main())
