"""Progress bar, loss log and trackers of a stage."""

from __future__ import annotations

import json
import resource
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from ciea_hf.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from accelerate import Accelerator

    from ciea_hf.training.config import TrainingConfig

SECONDS_BETWEEN_LINES = 30.0  # interval of the bar's updates in a file


class Reporter:
    """Reports the steps and evaluations of a stage, from the main process only.

    Args:
        config: Configuration of the stage.
        accelerator: Accelerator whose trackers receive all values, named `STAGE/...`.
        path: Path of the loss log.
        max_steps: Number of steps of the stage.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, path: Path, max_steps: int) -> None:
        self.config = config
        self.accelerator = accelerator
        self.log = LossLog(path)
        self.max_steps = max_steps
        self._bar: Any = None
        self._dev: dict[str, str] = {}

    @contextmanager
    def opened(self, step: int) -> Iterator[None]:
        """Show the bar from a step on, after truncating the loss log to that step."""
        if self.accelerator.is_main_process:
            self.log.rewind(step)
        self._bar = tqdm(
            total=self.max_steps,
            initial=step,
            desc=self.config.stage,
            unit="step",
            disable=not self.accelerator.is_local_main_process,
            mininterval=0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES,
        )
        with self._bar:
            yield

    def step(self, losses: Mapping[str, float]) -> None:
        """Show a step and its losses in the progress bar."""
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()} | self._dev, refresh=False)
        self._bar.update()

    def logs(self, step: int) -> bool:
        """Return whether the loss log and the trackers receive this step."""
        return step % self.config.log_steps == 0

    def log_step(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Write a step to the loss log and the trackers.

        Args:
            step: Number of the step, from 1.
            values: Losses and other reproducible values by name.
            seconds: Duration of the step.
        """
        if self.accelerator.is_main_process:
            self.log.append({"step": step, **values})
        samples = self.config.batch_size * self.config.gradient_accumulation_steps
        timing = {"samples_per_second": samples / seconds, "memory_gb": peak_memory(self.accelerator.device)}
        self._track({**values, **timing}, step)

    def evaluation(self, step: int, metrics: Mapping[str, float], metric: str, best: bool) -> None:
        """Report an evaluation; `metric` is the one that selects the best model."""
        self._track({f"dev/{name}": value for name, value in metrics.items()}, step)
        self._dev = {"dev": f"{metrics[metric]:.4f}"}
        if self.accelerator.is_main_process:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            tqdm.write(f"{self.config.stage}, step {step}: dev {shown}{'  (best)' if best else ''}")

    def _track(self, values: Mapping[str, float], step: int) -> None:
        self.accelerator.log({f"{self.config.stage}/{name}": value for name, value in values.items()}, step=step)


class LossLog:
    """Log with a line of JSON for every `log_steps` steps; a resumed run truncates it to its checkpoint.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def rewind(self, step: int) -> None:
        """Remove lines after a step.

        Raises:
            ValueError: If a line is damaged; the message names file and line. A last, incomplete line is removed.
        """
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        kept = [line for number, line in enumerate(whole, start=1) if self._step(line, number) <= step]
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(b"".join(kept))

    def _step(self, line: bytes, number: int) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{self.path}, line {number}: not an entry of the loss log: {line[:80]!r}") from error

    def append(self, record: dict[str, Any]) -> None:
        """Append a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def peak_memory(device: torch.device) -> float:
    """Return the peak memory so far in GB: of tensors on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
