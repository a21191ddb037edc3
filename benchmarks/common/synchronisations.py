"""Where a program waits for the device: counted by torch on a GPU, and by its operations on a CPU."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WARNING = "called a synchronizing"  # start of torch's warning
OWN = ("ciea_hf", "benchmarks")  # packages whose lines are named
READING = {
    "item", "_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_numpy", "argwhere",
    "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
}  # fmt: skip
"""Operations whose result, or the size of it, the host must know before it can continue."""
PASSED = (__name__, "warnings", "torch.utils._python_dispatch", "torch._dynamo.eval_frame")  # frames of the counting
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


def synchronisations(task: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Run a task once, and count its synchronisations of host and device by call site.

    Args:
        task: Function that is run.
        device: Device that it uses. On a CPU the operations that would synchronise on a GPU are counted.

    Returns:
        Numbers by module, line and function; the largest first.
    """
    if device.type == "cuda":
        with _warned() as found:
            task()
        return dict(found.most_common())
    with SynchronisingOperations() as mode:
        task()
    return dict(mode.found.most_common())


class SynchronisingOperations(TorchDispatchMode):
    """Context manager that counts the operations that would synchronise host and device if the device were a GPU.

    Copies between devices are not among them, because tensors that would be on the host and on the device look alike.

    Attributes:
        found: Numbers by operation and call site.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count an operation, and run it."""
        name = func.overloadpacket.__name__
        if name in READING or (name in INDEXING and any(map(_is_mask, args[1]))):
            self.found[f"{name} {call_site()}"] += 1
        return func(*args, **(kwargs or {}))


def _is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


@contextmanager
def _warned() -> Iterator[Counter[str]]:
    """Let torch warn of each synchronisation, and count the warnings by call site."""
    found: Counter[str] = Counter()

    def count(message: object, *_: object, **__: object) -> None:
        if WARNING in str(message):
            found[call_site()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def call_site() -> str:
    """Return module, line and function of the innermost call in this project, and that of the library below it."""
    frame: Any = sys._getframe(1)
    innermost = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "?"))
        if module not in PASSED:
            site = f"{module}:{frame.f_lineno} {frame.f_code.co_name}"
            innermost = innermost or site
            if module.split(".")[0] in OWN:
                return site if site == innermost else f"{site} > {innermost}"
        frame = frame.f_back
    return innermost or "?"
