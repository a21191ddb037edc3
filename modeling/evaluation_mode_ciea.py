"""Evaluation mode of a module that several threads use."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

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
