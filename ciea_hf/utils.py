"""Helpers shared by the whole package: optional imports, hashes, the cache folder, manifests, threads, memory."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ciea_hf.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
SPINS = "1000"  # some microseconds
LARGEST_KEPT = 1 << 30  # bytes of a block; larger ones are returned to the system

Item = TypeVar("Item")
Result = TypeVar("Result")


def import_optional(module: str, extra: str) -> Any:
    """Import an optional dependency, or explain how to install it.

    Args:
        module: Dotted name of the module.
        extra: Extra of this package that installs it, such as `"train"`.

    Returns:
        The imported module.

    Raises:
        ImportError: If the module is not installed; the message contains the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(f'`{module}` is required but not installed: pip install "ciea-hf[{extra}]"') from error


def limit_spinning() -> None:
    """Let threads that wait for each other fall asleep early, unless the environment says how they wait.

    PyTorch's threads on Linux (GNU OpenMP) spin for milliseconds before they fall asleep. While another program uses
    one of their processors, each of the thousands of waits in a training step takes that long. The variable is read
    when PyTorch is imported, so that this must be called before; processes started later inherit it.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def cache_dir() -> Path:
    """Return the folder for data that this package builds once and reuses.

    `CIEA_HF_CACHE` if set, else `$XDG_CACHE_HOME/ciea_hf`, else `~/.cache/ciea_hf`.
    """
    chosen = os.environ.get("CIEA_HF_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "ciea_hf"


def claim_manifest(path: str | os.PathLike[str], manifest: Mapping[str, Any], ignored: Collection[str] = ()) -> None:
    """Write the manifest of a folder of results, or check that the folder holds results of the same kind.

    Args:
        path: The manifest's file.
        manifest: What the results depend on.
        ignored: Keys that may differ from those of an existing manifest.

    Raises:
        ValueError: If the existing manifest cannot be read, or differs in another key; the message names the keys.
    """
    target = Path(path)
    if not target.exists():
        write_json(target, dict(manifest))
        return
    try:
        found = json.loads(target.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{target} cannot be read: {error}") from error
    differing = [name for name in manifest if name not in ignored and manifest[name] != found.get(name)]
    if differing:
        raise ValueError(
            f"{target.parent} was made with another {', '.join(differing)}: choose another folder, or delete this one"
        )


def short_hash(content: str | bytes, length: int = 32) -> str:
    """Return the first hexadecimal digits of a SHA-256 hash, for fingerprints and cache folder names."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:length]


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """Map in order while threads compute the next results.

    Args:
        function: Function of one item.
        items: Items, taken as they are needed.
        workers: Number of threads; 0 computes each result when it is requested.
        ahead: Maximum number of results that are computed or finished before they are requested; one per thread if
            `None`.

    Yields:
        Results in the order of the items.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > (workers if ahead is None else max(ahead, workers)):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for the rest of its life.

    By default glibc returns large blocks to the system, which clears every page again when the next training step asks
    for it: a sixth of the time of a step on a CPU. The peak of the memory stays the same.

    Returns:
        Whether the allocator supports it. Platforms other than Linux with glibc are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    return bool(mallopt and mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT))
