"""Gathering over processes, with gradients, of tensors whose lengths differ by process.

Training splits a global batch over the processes, and every process's documents are negatives of every query. Each
process computes the loss of its own queries against the gathered documents; a document's gradient is then the sum of
what all processes send back. Engines such as DDP average gradients over the processes, so a process multiplies its
share of the loss by their number: the mean over processes is the loss, and the mean of the gradients its gradient.
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
    """Number of processes, 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Number of this process, 0 outside distributed training."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        dist.barrier()


def gather_objects(value: T) -> list[T]:
    """Exchange one picklable value of each process; they come by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def run_on_main(make: Callable[[], T]) -> T:
    """Call a function in the main process alone; every process gets what it returns, or raises what it raises."""
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
    """Exchange a few integers.

    Args:
        sizes: This process's, equally many in every process.
        device: Where the backend communicates.

    Returns:
        Those of every process, by rank.
    """
    if world_size() == 1:
        return [list(sizes)]
    own = torch.tensor(list(sizes), dtype=torch.long, device=device)
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own)
    rows: list[list[int]] = torch.stack(found).tolist()
    return rows


def gather(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """Concatenate a tensor over all processes, in the order of their ranks; gradients flow back to all of them.

    Every process has to call this, and to run backward through the result, even where its own tensor is empty.

    Args:
        tensor: This process's rows, (n, ...); n may be 0.
        sizes: n of every process, as :func:`gather_sizes` returns it.

    Returns:
        (sum of sizes, ...).
    """
    if world_size() == 1:
        return tensor
    if torch.is_grad_enabled() and tensor.is_floating_point() and not tensor.requires_grad:
        tensor = tensor.detach().requires_grad_()  # so that this process takes part in the backward pass
    gathered: Tensor = _Gather.apply(tensor, tuple(sizes))  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather of padded rows; its backward pass sums the gradients over processes and keeps the own rows."""

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
