"""Stops a stage whose numbers are not finite, or which trains on nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

import torch
from torch.distributed.tensor import DTensor

from ciea_hf.files import write_json
from ciea_hf.training.distributed import gather_objects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from ciea_hf.training.data.batch import TrainingBatch
    from ciea_hf.training.data.examples import Examples
    from ciea_hf.training.run.checkpoint import Progress

EMPTY_STEPS = 64  # consecutive steps without a readable example after which the data counts as lost
SHOWN = 3  # names in an error


class Guard:
    """Checks of a stage while it trains.

    Args:
        model: Model in training.
        examples: Training examples.
        folder: Folder of the stage, which receives the ids of a batch whose loss is not finite.
        rank: Rank of this process.
    """

    def __init__(self, model: nn.Module, examples: Examples, folder: Path, rank: int) -> None:
        self.model = model
        self.examples = examples
        self.folder = folder
        self.rank = rank
        self._empty_steps = 0
        self._checked = -1

    def check_values(self, step: int, values: Mapping[str, float], batches: Sequence[TrainingBatch]) -> None:
        """Check the losses or the gradient norm of a step.

        Raises:
            FloatingPointError: If a value is not finite; the ids of this process's batches are saved.
        """
        if not all(map(math.isfinite, values.values())):
            self._stop(step, {name: str(value) for name, value in values.items()}, batches)

    def check_weights(self, step: int) -> None:
        """Check the weights before they are saved or evaluated; every process must call this.

        Raises:
            FloatingPointError: If a weight is not finite in any process.
        """
        if step == self._checked:
            return
        found = [name for names in gather_objects(_names_not_finite(self.model)) for name in names]
        names = list(dict.fromkeys(found))
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise FloatingPointError(
                f"the weights after step {step} are not finite: {', '.join(names[:SHOWN])}{more}; nothing was saved. "
                "Reduce `learning_rate` or set `max_grad_norm`"
            )
        self._checked = step

    def check_data(self, step: int, queries: float) -> None:
        """Check that the last steps had an example.

        Args:
            step: Number of the step.
            queries: Number of queries of the step that took part in the losses, over all processes.

        Raises:
            ValueError: If no example could be read for many steps.
        """
        self._empty_steps = 0 if queries else self._empty_steps + 1
        if self._empty_steps >= EMPTY_STEPS:
            raise ValueError(f"no example of the last {EMPTY_STEPS} steps up to step {step} could be read")

    def check_progress(self, progress: Progress) -> None:
        """Check that the stage has trained on an example before its model is kept as the best one.

        Raises:
            ValueError: If no example could be read.
        """
        if progress.step and not progress.queries:
            reason = next((f", for example document {name!r}: {why}" for name, why in progress.broken.items()), "")
            raise ValueError(f"no example of the {progress.step} steps could be read{reason}; no model was saved")

    def _stop(self, step: int, values: dict[str, str], batches: Sequence[TrainingBatch]) -> NoReturn:
        path = self.folder / f"not-finite-{self.rank}.json"
        rows = [row for batch in batches for row in batch.documents.tolist()]
        content = {
            "step": step,
            "values": values,
            "queries": [query for batch in batches for query in batch.query_ids],
            "documents": [self.examples.view.ids[row] for row in rows],
        }
        write_json(path, content)
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        raise FloatingPointError(f"the loss of step {step} is not finite: {shown}; the ids of its batch are in {path}")


def _names_not_finite(model: nn.Module) -> list[str]:
    """Return the names of the parameters that are not finite, in this process's shard."""
    local = {name: p.to_local() if isinstance(p, DTensor) else p for name, p in model.named_parameters()}
    with torch.no_grad():
        flags = [torch.isfinite(parameter).all() for parameter in local.values()]
        finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    return [name for name, good in zip(local, finite, strict=True) if not good]
