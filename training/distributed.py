"""Communication between processes, including a gather with gradients for tensors of different lengths.

Training splits a global batch over the processes, and every process's documents are negatives of every query. Each
process computes the loss of its own queries against the gathered documents; the gradient of a document is then the sum
of the gradients from all processes. Engines such as DDP average gradients over the processes, so each process
multiplies its share of the loss by their number: the mean over processes is the loss, and the mean of the gradients is
its gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Return the rank of this process; 0 outside distributed training."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def gather_objects(value: T) -> list[T]:
    """Gather one picklable value of each process, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def run_on_main(make: Callable[[], T]) -> T:
    """Call a function in the main process only, and return its result, or raise its error, in every process."""
    if world_size() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if process_rank() == 0:
        try:
            outcome[0] = make()
        except (ValueError, TypeError, OSError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    value: T = outcome[0]
    return value


def gather_sizes(sizes: Sequence[int], device: torch.device) -> list[list[int]]:
    """Gather a few integers of each process.

    Args:
        sizes: Integers of this process, equally many in every process.
        device: Device of the communication backend.

    Returns:
        Integers of all processes, by rank.
    """
    if world_size() == 1:
        return [list(sizes)]
    own = torch.tensor(list(sizes), dtype=torch.long, device=device)
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own)
    rows: list[list[int]] = torch.stack(found).tolist()
    return rows


def gather(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """Concatenate a tensor over all processes, by rank; gradients flow back to all of them.

    Every process must call this, and run backward through the result, even if its own tensor is empty.

    Args:
        tensor: Rows of this process, (n, ...); n may be 0.
        sizes: n of every process, from [`gather_sizes`].

    Returns:
        (sum of sizes, ...).
    """
    if world_size() == 1:
        return tensor
    if torch.is_grad_enabled() and tensor.is_floating_point() and not tensor.requires_grad:
        tensor = tensor.detach().requires_grad_()  # the backward pass communicates, so every process must take part
    gathered: Tensor = _Gather.apply(tensor, tuple(sizes))  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather of padded rows; the backward pass sums gradients over processes and returns the own rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in sizes]
        if padded.numel():
            dist.all_gather(found, padded)
        return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        if gradient.numel():
            dist.all_reduce(gradient)
        start = sum(ctx.sizes[: process_rank()])
        return gradient[start : start + ctx.sizes[process_rank()]], None
