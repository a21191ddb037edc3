"""Helpers shared by the whole package: optional imports, atomic files, hashes, the cache folder."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

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


def cache_dir() -> Path:
    """Return the folder for data that this package builds once and reuses.

    `CIEA_HF_CACHE` if set, else `$XDG_CACHE_HOME/ciea_hf`, else `~/.cache/ciea_hf`.
    """
    chosen = os.environ.get("CIEA_HF_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "ciea_hf"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` if the block ends without an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 2) -> None:
    """Write JSON atomically, in UTF-8 with a final newline.

    Args:
        path: The file.
        content: Anything that `json.dumps` accepts.
        indent: Spaces of indentation; None writes one line.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


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


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, and move it to `path` if the block ends without an error.

    An existing folder is replaced in the last step, so that a reader sees the old folder or the new one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        if target.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
            target.replace(retired / target.name)
            temporary.replace(target)
            shutil.rmtree(retired)
        else:
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def prefetch_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Map in order while threads compute the next results, at most one per thread ahead.

    Args:
        function: Function of one item.
        items: Items, taken as they are needed.
        workers: Number of threads; 0 computes each result when it is requested.

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
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
