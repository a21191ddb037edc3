"""Times, rates, memory and profiles of tasks on a GPU; also on a CPU, for tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPETITIONS = (5, 20)  # least and most
FEW = 2  # repetitions of a task that takes longer than `LONG`
LONG, ENOUGH = 2.0, 1.0  # seconds of a long repetition, and of all repetitions together
PRODUCTS, WARM_UP = 10, 3
SHOWN = 15
CALLS = (
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpyAsync", "cudaLaunchKernel",
    "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaMalloc", "aten::item",
    "aten::_local_scalar_dense", "aten::nonzero", "aten::unique", "aten::to", "aten::copy_",
)  # fmt: skip
"""Functions whose calls a profile counts."""


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(task: Callable[[], object], device: torch.device) -> float:
    """Run a task once; return the seconds until the device has finished."""
    synchronise(device)
    start = time.perf_counter()
    task()
    synchronise(device)
    return time.perf_counter() - start


def repeated(task: Callable[[], object], device: torch.device) -> list[float]:
    """Time repetitions of a task after one that does not count; their number depends on its duration."""
    once = timed(task, device)
    wanted = FEW if once > LONG else min(max(round(ENOUGH / max(once, 1e-6)), REPETITIONS[0]), REPETITIONS[1])
    return [timed(task, device) for _ in range(wanted)]


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number of values the upper one of the two in the middle."""
    return sorted(values)[len(values) // 2]


def matrix_rate(shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of a matrix product of random values, in operations per second.

    Args:
        shape: Rows of the left factor, its columns, and columns of the right factor.
        device: Device.
        dtype: Type of the factors.

    Returns:
        The rate.
    """
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(inner, columns, device=device, dtype=dtype)
    result = torch.empty(rows, columns, device=device, dtype=dtype)

    def products(number: int) -> None:
        for _ in range(number):
            torch.mm(left, right, out=result)

    products(WARM_UP)
    seconds = [timed(lambda: products(PRODUCTS), device) for _ in range(WARM_UP)]
    return 2.0 * rows * inner * columns * PRODUCTS / median(seconds)


def reset_peak_memory(device: torch.device) -> None:
    """Start to measure the peak of the device's memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of tensors on the device in bytes, 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def profile(task: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Profile one repetition of a task.

    Args:
        task: Function that is run.
        device: Device that it uses.

    Returns:
        Seconds of the repetition while it is profiled; number and seconds of the kernels; the kernels that take
        longest; and the numbers of calls and copies by name. On a CPU operations take the place of kernels.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        seconds = timed(task, device)
    events: list[Any] = list(profiler.key_averages())
    on_device = [event for event in events if event.device_type.name == "CUDA"]
    kernels = [(event.key, event.count, event.self_device_time_total / 1e6) for event in on_device]
    if not on_device:
        kernels = [(event.key, event.count, event.self_cpu_time_total / 1e6) for event in events]
    kernels.sort(key=lambda kernel: -kernel[2])
    named = [event for event in events if event.key in CALLS or event.key.startswith("Memcpy")]
    return {
        "seconds": round(seconds, 5),
        "kernels": sum(count for _, count, _ in kernels),
        "kernel_seconds": round(sum(taken for _, _, taken in kernels), 5),
        "longest": [[name[:120], count, round(taken, 6)] for name, count, taken in kernels[:SHOWN]],
        "calls": {event.key: event.count for event in named},
    }
