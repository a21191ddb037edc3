"""Starts the training's driver on the embedded benchmark, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def launch_training(folder: Path, arguments: Sequence[str]) -> Path:
    """Run `accelerate launch` of the training's driver with the preset `demo`.

    A training that is finished is left as it is, and one that was interrupted goes on.

    Args:
        folder: Where everything is written, a folder for each stage.
        arguments: What the driver is told beside the preset.

    Returns:
        The folder.

    Raises:
        SystemExit: If the training fails, with its exit status.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    launch = ("accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--num_cpu_threads_per_process", str(threads))  # fmt: skip
    command = (*launch, "-m", "ciea_hf.training.train", "--preset", "demo", "--output-dir", str(folder), "--resume")
    status = subprocess.run([sys.executable, "-m", *command, *arguments], check=False).returncode
    if status:
        raise SystemExit(status)
    return folder
