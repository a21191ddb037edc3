"""How a model is used for encoding: its mode, also with several threads, and the device of its inputs."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_blocks: WeakKeyDictionary[torch.nn.Module, tuple[int, list[torch.nn.Module]]] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode within a `with` block.

    Blocks of several threads may overlap: the first one switches the mode, and the last one restores that of each
    submodule.
    """
    with _lock:
        count, training = _blocks.get(module) or (0, [part for part in module.modules() if part.training])
        _blocks[module] = count + 1, training
        if not count:
            module.eval()
    try:
        yield
    finally:
        with _lock:
            count, training = _blocks.pop(module)
            if count > 1:
                _blocks[module] = count - 1, training
            else:
                for part in training:
                    part.training = True


def input_device(model: Any) -> torch.device:
    """Return the device of inputs: that of the weights, unless Accelerate loads these when they are needed."""
    device = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    if device is not None:
        return torch.device(device)
    return torch.device("cpu") if model.device.type == "meta" else model.device


def usable_device(device: Any) -> torch.device:
    """Return a device after checking that this machine has it, because a model that was moved elsewhere is lost.

    Raises:
        ValueError: If the device does not exist, or holds no values, as `meta`.
        TypeError: If several devices are given.
    """
    if isinstance(device, list | tuple):
        raise TypeError(f"`device` must be one device; got {device!r} (SentenceTransformer supports several)")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"`device` must be a device of this machine; got {device!r}") from error
    return found
