"""Checkpoints: whole or not there, a few of them kept, and enough in each to go on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        broken: Ids of the documents whose image could not be decoded, and why it could not.
    """

    step: int = 0
    scheduled: int = 0
    seconds: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


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
        with whole_or_not_at_all(f"checkpoint {target}", "older checkpoints are whole", self.folder, partial):
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
        self.accelerator.wait_for_everyone()
        return target

    def load_last(self) -> Progress | None:
        """Load the last whole checkpoint into what the accelerator has prepared; None if there is none.

        Raises:
            ValueError: If it was saved of other parameters than are trained now.
        """
        found = self.all()
        if not found:
            return None
        content: dict[str, Any] = json.loads((found[-1] / PROGRESS).read_text(encoding="utf-8"))
        try:
            self.accelerator.load_state(str(found[-1]))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"checkpoint {found[-1]} does not fit what is trained now; were `freeze`, `lora` or the model others? "
                f"({' '.join(str(error).split())[:300]})"
            ) from error
        self.accelerator.step = 0  # checkpoints stand between steps, whatever `gradient_accumulation_steps` was
        return Progress(**content)

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if (path / PROGRESS).is_file())

    def _prune(self) -> None:
        for path in self.all()[: -self.keep]:
            shutil.rmtree(path)
        for path in self.folder.glob(f".{PREFIX}*.partial"):  # of runs that were killed while they wrote
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def whole_or_not_at_all(what: str, otherwise: str, folder: Path, partial: Path | None = None) -> Iterator[None]:
    """Turn what libraries raise when they cannot write a file into an error that says so, and remove what is partial.

    Args:
        what: What is written, for the error.
        otherwise: What remains if it is not, for the error.
        folder: Where it is written.
        partial: A folder to remove then.

    Raises:
        OSError: If the disk is full or cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # each is what a full disk may look like
        full = _disk_is_full(error, folder)
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if not full and not isinstance(error, OSError):
            raise
        reason = "the disk is full" if full else str(error)
        raise OSError(f"{what} was not written: {reason}; {otherwise}") from error


def _disk_is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < LEAST_FREE_BYTES
