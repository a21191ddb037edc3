"""Losses and other values of a step, which stay on the device until all of them are read at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ciea_hf.training.loss.objective import mean_over_processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ciea_hf.training.data.batch import TrainingBatch
    from ciea_hf.training.run.guard import Guard

TERMINATED = "terminated"
QUERIES = "queries"


class StepValues:
    """Values of the batches of a step.

    The host waits for the device when it reads a value, and the device has nothing to do until the host has submitted
    more work. So values are read once per step, after the backward passes.

    Attributes:
        batches: Batches of the step so far.
    """

    def __init__(self) -> None:
        self.batches: list[TrainingBatch] = []
        self._values: list[dict[str, Tensor]] = []

    def add(self, batch: TrainingBatch, losses: Mapping[str, Tensor], terminated: bool) -> None:
        """Add a batch: averages over the processes of its losses, its number of queries, and SIGTERMs received."""
        values = [value.detach().double() for value in losses.values()]
        values += [torch.full_like(values[0], number) for number in (len(batch.query_ids), terminated)]
        self._values.append(
            dict(zip([*losses, QUERIES, TERMINATED], mean_over_processes(torch.stack(values)), strict=True))
        )
        self.batches.append(batch)

    def read(self, gradient_norm: Tensor | float, guard: Guard, step: int, scaled: bool) -> dict[str, float]:
        """Read and check the values.

        Args:
            gradient_norm: Norm of the gradients of all batches.
            guard: Checks of the stage.
            step: Number of the step, from 1.
            scaled: Whether a scaler multiplies the loss, which skips steps whose gradients are not finite.

        Returns:
            Averages over the batches of the losses, of `QUERIES` and of `TERMINATED`; and `grad_norm`.

        Raises:
            FloatingPointError: If a loss or the norm is not finite; the ids of its batches are saved.
        """
        flat = [value for values in self._values for value in values.values()]
        *numbers, norm = torch.stack([*flat, torch.as_tensor(gradient_norm).to(flat[0])]).tolist()
        sums = dict.fromkeys(self._values[0], 0.0)
        for index, batch in enumerate(self.batches):
            found = dict(zip(sums, numbers[index * len(sums) :], strict=False))
            guard.check_values(step, _losses(found), [batch])
            sums = {name: sums[name] + value for name, value in found.items()}
        averages = {name: value / len(self.batches) for name, value in sums.items()}
        if not scaled:
            guard.check_values(step, {**_losses(averages), "grad_norm": norm}, self.batches)
        return {**averages, "grad_norm": norm}


def _losses(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in (QUERIES, TERMINATED)}
