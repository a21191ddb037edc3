"""Atomic, rotating checkpoints from which training resumes bit-identically."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from ciea_hf.files import flush
from ciea_hf.training.distributed import run_on_main
from ciea_hf.training.run.checksums import find_damage, read_json, shorten, write_checksums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from accelerate import Accelerator

logger = logging.getLogger(__name__)

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
        queries: Mean number of queries per process that took part in the losses so far.
        processes: Number of processes of the run.
    """

    step: int = 0
    scheduled: int = 0
    seconds: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    queries: float = 0.0
    processes: int = 1


class Checkpoints:
    """The checkpoints of one stage, with checksums that are compared before one is loaded.

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

        Later checkpoints, which a resumed run did not load because they are damaged, are removed too.

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
                write_checksums(partial)
                if target.exists():  # saved by a run that was then killed, or damaged since
                    _remove(target)
                partial.replace(target)
                flush(self.folder)
                self._prune(target)
        self.accelerator.wait_for_everyone()
        return target

    def load_last(self) -> Progress | None:
        """Load the last intact checkpoint into the prepared objects; every process calls this.

        A damaged checkpoint is named in a warning, and the one before it is used.

        Returns:
            The progress at the checkpoint; `None` if there is no checkpoint.

        Raises:
            ValueError: If all checkpoints are damaged, or the parameters differ from those in training.
        """
        path = run_on_main(self._last_intact)
        if path is None:
            return None
        progress = _read_progress(path)
        try:
            self.accelerator.load_state(str(path))
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"checkpoint {path} does not match the model in training: did `freeze`, `lora` or the model "
                f"change? ({shorten(error, 300)})"
            ) from error
        self.accelerator.step = 0  # checkpoints are taken between steps, whatever `gradient_accumulation_steps` was
        return progress

    def all(self) -> list[Path]:
        """Return the checkpoints, intact or not, oldest first."""
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if path.is_dir())

    def _last_intact(self) -> Path | None:
        damages: list[str] = []
        for path in reversed(self.all()):
            damage = find_damage(path, required=[PROGRESS])
            if damage is None:
                return path
            damages.append(f"checkpoint {path} is damaged: {damage}")
            logger.warning("%s; an older checkpoint is used", damages[-1])
        if damages:
            raise ValueError(
                f"no intact checkpoint is left ({'; '.join(damages)}): restore one, or delete {self.folder.parent} to "
                "start the stage again"
            )
        return None

    def _prune(self, newest: Path) -> None:
        found = self.all()
        older = [path for path in found if path.name <= newest.name]
        for path in found:
            if path not in older[-self.keep :]:
                _remove(path)
        for pattern in (f".{PREFIX}*.partial", f".{PREFIX}*.removed"):  # left by killed runs
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _read_progress(folder: Path) -> Progress:
    path = folder / PROGRESS
    try:
        return Progress(**read_json(path))
    except TypeError as error:
        raise ValueError(f"{path} was written by another version of ciea-hf: {shorten(error)}") from error


def _remove(folder: Path) -> None:
    """Remove a checkpoint; a run killed meanwhile leaves a hidden folder, not half a checkpoint."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.replace(hidden)
    shutil.rmtree(hidden)


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
