"""Lock of an output folder, so that two trainings never write to the same one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout  # huggingface_hub depends on it

from ciea_hf.training.distributed import run_on_main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from filelock import BaseFileLock

LOCK = ".training.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder; every process must call this, and the main process holds it.

    The operating system releases the lock of a killed run. The lock's file remains.

    Args:
        folder: Output folder, created if it is missing.

    Raises:
        ValueError: If another training holds the lock.
    """
    held: list[BaseFileLock] = []

    def acquire() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(
                f"another training is writing to {folder}: wait until it ends, or set another --output-dir"
            ) from error
        held.append(lock)

    run_on_main(acquire)
    try:
        yield
    finally:
        for lock in held:
            lock.release()
