"""Which examples make up which batch: a function of the seed and the number of the batch, and of nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class SampleKey(NamedTuple):
    """One example of one epoch; random choices within an example are seeded by it.

    Attributes:
        seed: The run's seed.
        epoch: From 0.
        number: Of the example.
    """

    seed: int
    epoch: int
    number: int


class ResumableBatchSampler(Sampler[list[SampleKey]]):
    """An endless stream of shuffled batches, of which each process gets its contiguous slice.

    Batch ``b`` holds the same examples for any number of processes, and can be reached without walking there: a
    resumed run starts the stream at the batch where it stopped. An epoch's last, incomplete batch is left out; as
    each epoch has an order of its own, no example is left out for good.

    Args:
        examples: How many there are.
        batch_size: Of all processes together.
        seed: Of the order.
        start: First batch to give, counted from the beginning of the run.
        rank: This process.
        processes: Number of processes.

    Raises:
        ValueError: If there are fewer examples than a batch holds, or fewer places in a batch than processes.
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        if examples < batch_size:
            raise ValueError(f"`batch_size` is {batch_size}, but there are only {examples} training examples")
        if batch_size < processes:
            raise ValueError(f"`batch_size` {batch_size} does not reach for {processes} processes")
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        bounds = [batch_size * i // processes for i in range(processes + 1)]
        self._slice = slice(bounds[rank], bounds[rank + 1])

    @property
    def batches_per_epoch(self) -> int:
        """Complete batches of one epoch."""
        return self.examples // self.batch_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, batch = divmod(self.start, self.batches_per_epoch)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.examples)
            for number in range(batch, self.batches_per_epoch):
                chosen = order[number * self.batch_size : (number + 1) * self.batch_size][self._slice]
                yield [SampleKey(self.seed, epoch, int(index)) for index in chosen]
            epoch, batch = epoch + 1, 0
