"""Selection of the examples of each batch, a function of the seed and the batch number only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class SampleKey(NamedTuple):
    """One example of one epoch; seeds the random choices within the example.

    Attributes:
        seed: Random seed of the run.
        epoch: Epoch, from 0.
        number: Index of the example.
    """

    seed: int
    epoch: int
    number: int


class ResumableBatchSampler(Sampler[list[SampleKey]]):
    """An endless stream of shuffled batches, of which each process receives its contiguous slice.

    Batch `b` holds the same examples for any number of processes and is computed directly from its number, so that a
    resumed run starts the stream at the batch where it stopped. The last, incomplete batch of an epoch is dropped;
    since each epoch is shuffled anew, no example is dropped for good.

    Args:
        examples: Number of examples.
        batch_size: Batch size over all processes.
        seed: Seed of the order.
        start: First batch, counted from the beginning of the run.
        rank: Rank of this process.
        processes: Number of processes.

    Raises:
        ValueError: If there are fewer examples than a batch holds, or the batch is smaller than the number of
            processes.
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        if examples < batch_size:
            raise ValueError(f"`batch_size` is {batch_size}, but there are only {examples} training examples")
        if batch_size < processes:
            raise ValueError(f"`batch_size` must be at least the number of processes, {processes}; got {batch_size}")
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        bounds = [batch_size * i // processes for i in range(processes + 1)]
        self._slice = slice(bounds[rank], bounds[rank + 1])

    @property
    def batches_per_epoch(self) -> int:
        """Number of complete batches per epoch."""
        return self.examples // self.batch_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, batch = divmod(self.start, self.batches_per_epoch)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.examples)
            for number in range(batch, self.batches_per_epoch):
                chosen = order[number * self.batch_size : (number + 1) * self.batch_size][self._slice]
                yield [SampleKey(self.seed, epoch, int(index)) for index in chosen]
            epoch, batch = epoch + 1, 0
