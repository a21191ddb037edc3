"""Copies of inputs to a GPU that the host does not wait for, and how far it may run ahead of the GPU."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import BatchFeature

AHEAD = 2  # batches


def pin(batch: BatchFeature, device: torch.device) -> BatchFeature:
    """Move tensors to pinned memory if they are going to be copied to a GPU: other copies block the host."""
    if device.type == "cuda":
        batch.data = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return batch


def copy(batch: BatchFeature, device: torch.device) -> BatchFeature:
    """Copy tensors to a device; those in pinned memory are copied to a GPU while the host continues."""
    return batch.to(device, non_blocking=device.type == "cuda")


class Lead:
    """Limits the lead of the host: it waits while a GPU has more than `AHEAD` unfinished batches.

    Without a limit, inputs and results of all batches would be in memory at once if the host is faster.

    Args:
        device: Device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._unfinished: deque[torch.cuda.Event] = deque()

    def submitted(self) -> None:
        """Note that a batch has been submitted; wait for the one `AHEAD` before it."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._unfinished.append(event)
        if len(self._unfinished) > AHEAD:
            self._unfinished.popleft().synchronize()
