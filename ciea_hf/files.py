"""Files and folders that appear completely or not at all."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # faults of a disk, not of a program
_BLOCK = 1 << 20  # bytes read at a time
_EXCHANGE = 2  # flag of renameat2
_AT_FDCWD = -100


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` if the block ends without an error.

    The content is on disk before it is visible. An existing file keeps its mode, and a new one gets that of the umask.
    A symbolic link is followed. The content of a device or a pipe is written into it. Temporary files of killed
    processes are removed.

    Raises:
        IsADirectoryError: If `path` is a folder.
        OSError: If the disk is full or fails; the message names `path`.
    """
    target = _followed(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; a file is to be written")
    with disk_errors_named(path):
        if target.exists() and not target.is_file():
            with _into_device(target) as temporary:
                yield temporary
            return
        temporary = _prepared(target)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            flush(temporary)
            temporary.replace(target)
            flush(target.parent)
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


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, and move it to `path` if the block ends without an error.

    Where the system can exchange two folders (Linux), a reader sees the old folder or the new one at any time;
    elsewhere there is a moment without either. Of several writers, the last one wins. Temporary folders of killed
    processes are removed.

    Raises:
        NotADirectoryError: If `path` is a file.
        OSError: If the disk is full or fails; the message names `path`.
    """
    target = _followed(path)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; a folder is to be written")
    with disk_errors_named(path):
        temporary = _prepared(target)
        temporary.mkdir(mode=0o777)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    flush(file)
            flush(temporary)
            _move(temporary, target)
            flush(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_errors_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the errors of a disk that is full or fails into an `OSError` that names a path.

    Libraries raise errors of many classes for it, which name no file or a temporary one.

    Args:
        path: File or folder that the block writes.

    Raises:
        OSError: If the disk is full, fails or cannot be written.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        fault = next((fault for fault in _DISK if fault == number or os.strerror(fault) in str(error)), None)
        if fault is None or _names_other_file(error, _followed(path)):
            raise
        raise OSError(fault, os.strerror(fault), os.fspath(path)) from error


def _names_other_file(error: Exception, target: Path) -> bool:
    """Return whether an error names a file that is neither a target nor its temporary file."""
    named = [str(name) for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name]
    return bool(named) and not any(f".{target.name[:100]}." in name or name == str(target) for name in named)


def _move(temporary: Path, target: Path) -> None:
    """Move a folder to a path where another one may be, which is then in the first one's place or gone."""
    for _ in range(100):
        if target.exists() and _exchange(temporary, target):
            return
        if target.exists():
            retired = _temporary(target, "old")
            try:
                target.replace(retired)
            except FileNotFoundError:  # another writer has moved it
                continue
            shutil.rmtree(retired, ignore_errors=True)
        try:
            temporary.rename(target)
        except OSError:  # another writer was faster
            if not target.exists():
                raise
        else:
            return
    raise OSError(f"{target} is replaced by other processes all the time")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; False if the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0)


@contextmanager
def _into_device(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ciea-hf-") as folder:
        temporary = Path(folder) / (target.name or "output")
        temporary.touch()
        yield temporary
        with temporary.open("rb") as source, target.open("wb") as device:
            shutil.copyfileobj(source, device)


def _followed(path: str | os.PathLike[str]) -> Path:
    """Return what a path names, through symbolic links."""
    target = Path(path)
    return target.resolve() if target.is_symlink() else target


def _prepared(target: Path) -> Path:
    """Create the folder of a target, remove leftovers in it, and return a temporary path next to the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    return _temporary(target, "tmp")


def _temporary(target: Path, suffix: str) -> Path:
    """Return a new path next to a target, whose name says which process it belongs to."""
    owner = f"{_host()}-{os.getpid()}"
    return target.with_name(f".{target.name[:100]}.{owner}.{secrets.token_hex(4)}.{suffix}")


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname())[:40] or "host"


def remove_leftovers(target: Path) -> None:
    """Remove temporary files and folders of this target that killed processes of this machine have left.

    A folder that was moved away and not replaced becomes the target again.
    """
    pattern = re.compile(rf"\.{re.escape(target.name[:100])}\.{re.escape(_host())}-(\d+)\.[0-9a-f]{{8}}\.(tmp|old)")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _is_running(int(match[1])):
            continue
        if match[2] == "old" and not target.exists():
            path.replace(target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def flush(path: Path) -> None:
    """Write a file or the entries of a folder to disk.

    Raises:
        OSError: If the disk is full or fails. A file system without support for flushing is ignored.
    """
    if os.name == "nt":  # Windows neither opens folders nor flushes files opened for reading
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EROFS):
            raise OSError(error.errno, f"{path} cannot be flushed to the disk: {error.strerror}") from error
    finally:
        os.close(handle)


def file_checksum(path: Path) -> str:
    """Return the SHA-256 hash of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
