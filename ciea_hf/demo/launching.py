"""Launches training on the embedded benchmark in a separate process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from ciea_hf.utils import usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def launch_training(folder: Path, arguments: Sequence[str], preset: str = "demo") -> Path:
    """Run `training/train.py` on the embedded benchmark through `accelerate launch`.

    A finished training is not repeated, and an interrupted one continues.

    Args:
        folder: Output folder, with a folder per stage.
        arguments: Arguments in addition to the preset.
        preset: Name of the preset.

    Returns:
        The folder.

    Raises:
        SystemExit: If the training fails, with its exit status.
    """
    launch = ("accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--num_cpu_threads_per_process", str(usable_cores()))  # fmt: skip
    command = (*launch, "-m", "ciea_hf.training.train", "--preset", preset, "--output-dir", str(folder), "--resume")
    status = subprocess.run([sys.executable, "-m", *command, *arguments], check=False).returncode
    if status:
        raise SystemExit(status)
    return folder
