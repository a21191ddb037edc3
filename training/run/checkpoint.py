"""Atomic, rotating checkpoints from which training resumes bit-identically."""

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
LEAST_FREE_BYTES = 1 << 20  # with less, the disk counts as full if an error does not state its cause


@dataclass
class Progress:
    """Progress of a stage.

    Attributes:
        step: Optimiser steps taken.
        scheduled: Steps of the learning rate schedule; fewer if mixed precision skipped updates.
        seconds: Wall time of the steps, without evaluations and checkpoints.
        best_metric: Best dev MRR@10 so far; `None` before the first evaluation.
        best_step: Step of the best evaluation.
        evaluations_without_gain: Evaluations since then.
        history: Dev metrics of each evaluation, with its step.
        broken: Ids of documents whose image cannot be decoded, and the reasons.
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
        folder: Folder of the checkpoints.
        keep: Number of checkpoints to keep.
        accelerator: Accelerator that saves and loads weights, optimiser and random states, sharded or not.
    """

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator) -> None:
        self.folder = folder
        self.keep = keep
        self.accelerator = accelerator

    def save(self, progress: Progress) -> Path:
        """Write a checkpoint, then remove the oldest ones beyond the limit; every process calls this.

        Raises:
            OSError: If the disk is full or cannot be written; older checkpoints remain unchanged.
        """
        target = self.folder / f"{PREFIX}{progress.step:08d}"
        partial = target.with_name(f".{target.name}.partial")
        with whole_or_not_at_all(f"checkpoint {target}", "older checkpoints are unchanged", self.folder, partial):
            if self.accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(partial))
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                (partial / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
                if target.exists():  # saved by a run that was then killed
                    shutil.rmtree(target)
                partial.replace(target)
                self._prune()
        self.accelerator.wait_for_everyone()
        return target

    def load_last(self) -> Progress | None:
        """Load the last complete checkpoint into the prepared objects; return `None` without one.

        Raises:
            ValueError: If the checkpoint's parameters differ from those in training.
        """
        found = self.all()
        if not found:
            return None
        content: dict[str, Any] = json.loads((found[-1] / PROGRESS).read_text(encoding="utf-8"))
        try:
            self.accelerator.load_state(str(found[-1]))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"checkpoint {found[-1]} does not match the model in training: did `freeze`, `lora` or the model "
                f"change? ({' '.join(str(error).split())[:300]})"
            ) from error
        self.accelerator.step = 0  # checkpoints are taken between steps, whatever `gradient_accumulation_steps` was
        return Progress(**content)

    def all(self) -> list[Path]:
        """Return complete checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if (path / PROGRESS).is_file())

    def _prune(self) -> None:
        for path in self.all()[: -self.keep]:
            shutil.rmtree(path)
        for path in self.folder.glob(f".{PREFIX}*.partial"):  # left by killed runs
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def whole_or_not_at_all(what: str, otherwise: str, folder: Path, partial: Path | None = None) -> Iterator[None]:
    """Convert the errors that libraries raise on failed writes to an `OSError`, and remove partial files.

    Args:
        what: Description of what is written, for the error.
        otherwise: Description of what remains otherwise, for the error.
        folder: Folder that is written to.
        partial: Folder to remove after an error.

    Raises:
        OSError: If the disk is full or cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk may raise any of these
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
