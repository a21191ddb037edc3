"""Checkpoints: whole or not there, a few of them kept, and enough in each to go on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

PREFIX = "step-"
PROGRESS = "progress.json"
LEAST_FREE_BYTES = 1 << 20  # a disk with less counts as full where an error does not say why a file was not written


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        step: Optimiser steps taken.
        scheduled: Steps of the learning rate's schedule; fewer, where mixed precision skipped an update.
        seconds: Wall time of the steps, without evaluations and checkpoints.
        best_metric: Best dev MRR@10 so far; None before the first evaluation.
        best_step: Where it was seen.
        evaluations_without_gain: Evaluations since then.
        history: Dev metrics of each evaluation, with its step.
    """

    step: int = 0
    scheduled: int = 0
    seconds: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        folder: Where they stand.
        keep: How many are kept.
        accelerator: Saves and loads weights, optimiser and random states, sharded or not.
    """

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator) -> None:
        self.folder = folder
        self.keep = keep
        self.accelerator = accelerator

    def save(self, progress: Progress) -> Path:
        """Write a checkpoint, then remove those beyond the limit; every process calls this.

        Raises:
            OSError: If the disk is full or cannot be written; older checkpoints stay as they were.
        """
        target = self.folder / f"{PREFIX}{progress.step:08d}"
        partial = target.with_name(f".{target.name}.partial")
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(partial))
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                (partial / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
                if target.exists():  # the same step, saved by a run that was then killed
                    shutil.rmtree(target)
                partial.replace(target)
                self._prune()
        except (OSError, RuntimeError, SafetensorError) as error:  # each is what a full disk may look like
            full = _disk_is_full(error, self.folder)
            shutil.rmtree(partial, ignore_errors=True)
            if not full and not isinstance(error, OSError):
                raise
            reason = "the disk is full" if full else str(error)
            raise OSError(f"checkpoint {target} was not written: {reason}; older checkpoints are whole") from error
        self.accelerator.wait_for_everyone()
        return target

    def load_last(self) -> Progress | None:
        """Load the last whole checkpoint into what the accelerator has prepared; None if there is none."""
        found = self.all()
        if not found:
            return None
        content: dict[str, Any] = json.loads((found[-1] / PROGRESS).read_text(encoding="utf-8"))
        self.accelerator.load_state(str(found[-1]))
        return Progress(**content)

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if (path / PROGRESS).is_file())

    def _prune(self) -> None:
        for path in self.all()[: -self.keep]:
            shutil.rmtree(path)
        for path in self.folder.glob(f".{PREFIX}*.partial"):  # of runs that were killed while they wrote
            shutil.rmtree(path, ignore_errors=True)


class LossLog:
    """A line of JSON for every few steps; a resumed run cuts off what its checkpoint does not know.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def rewind(self, step: int) -> None:
        """Keep only lines up to a step."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        with atomic_write(self.path) as temporary:
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            temporary.write_text("".join(kept), encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """Write a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _disk_is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return shutil.disk_usage(folder).free < LEAST_FREE_BYTES
