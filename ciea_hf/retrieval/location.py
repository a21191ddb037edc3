"""Locations of index folders: local paths, and URLs of the file systems that fsspec supports.

A remote file system is assumed to replace a file in one step, as object stores do, and to have no locks. Credentials
and endpoints are those of fsspec's own configuration and environment variables.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.files import atomic_write, write_json
from ciea_hf.utils import cache_dir, import_optional, short_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")  # two letters or more: C:/ is a drive of Windows


class _Stat(NamedTuple):
    st_size: int


class RemotePath(os.PathLike[str]):
    """A file or folder of a remote file system, with the members of `Path` that index folders need.

    Errors name the URL. Whatever a library of a file system raises becomes an `OSError`, unless it is an error of the
    user's input.

    Args:
        url: URL, such as `s3://bucket/folder`.

    Raises:
        ImportError: If the library of the protocol is not installed; the message names it.
        ValueError: If the protocol is unknown.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        core = import_optional("fsspec.core", extra="search")
        with self._errors_named():
            self._system, self._path = core.url_to_fs(self._url)

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"RemotePath({self._url!r})"

    def __fspath__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._url}/{name}")

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return self._url.rpartition("/")[2]

    @property
    def mirror(self) -> Path:
        """Folder of the cache for local copies of this folder's files."""
        readable = re.sub(r"[^\w.-]", "_", self.name)[:40]
        return cache_dir() / "remote" / f"{readable}-{short_hash(self._system.unstrip_protocol(self._path), 16)}"

    def is_file(self) -> bool:
        """Return whether the file exists."""
        try:
            return bool(self._info()["type"] == "file")
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        """Return whether the file exists."""
        return self.is_file()

    def stat(self) -> _Stat:
        """Return the size of the file; raises `FileNotFoundError` if it does not exist."""
        return _Stat(int(self._info()["size"]))

    def read_bytes(self) -> bytes:
        """Read the file; raises `FileNotFoundError` if it does not exist."""
        with self._errors_named():
            return bytes(self._system.cat_file(self._path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the file as text; raises `FileNotFoundError` if it does not exist."""
        return self.read_bytes().decode(encoding)

    def sizes(self) -> dict[str, int]:
        """Return the names of the files in the folder with their sizes; empty if there is no such folder."""
        with self._errors_named():
            self._system.invalidate_cache(self._path)
            try:
                found = self._system.ls(self._path, detail=True)
            except FileNotFoundError:
                return {}
        names = {item["name"].rstrip("/").rpartition("/")[2]: item for item in found if item["name"] != self._path}
        return {name: int(item["size"] or 0) for name, item in names.items() if name}

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield the files of the folder; none if there is no such folder."""
        for name in self.sizes():
            yield self / name

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            with self._errors_named():
                self._system.rm_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def download(self, target: Path) -> None:
        """Copy the file to a local path; raises `FileNotFoundError` if it does not exist."""
        with self._errors_named():
            self._system.get_file(self._path, str(target))

    def upload(self, source: Path) -> None:
        """Replace the file by a local one: in one step on object stores, in memory and on local disks."""
        local = import_optional("fsspec.implementations.local", extra="search")
        with self._errors_named():
            if isinstance(self._system, local.LocalFileSystem):  # whose own copy would be visible while it grows
                with atomic_write(self._path) as temporary:
                    shutil.copyfile(source, temporary)
            else:
                self._system.put_file(str(source), self._path)

    def _info(self) -> dict[str, Any]:
        with self._errors_named():
            self._system.invalidate_cache(self._system._parent(self._path))
            found: dict[str, Any] = self._system.info(self._path)
        return found

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self} not found") from error
        except Exception as error:
            kinds = (ImportError, ValueError, PermissionError)
            kind = next((kind for kind in kinds if isinstance(error, kind)), OSError)
            raise kind(f"{self}: {str(error) or type(error).__name__}") from error


Location = Path | RemotePath


def is_url(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is a URL, such as `s3://bucket/folder`, and not a local path."""
    return _URL.match(os.fspath(location)) is not None


def open_location(location: str | os.PathLike[str]) -> Location:
    """Return a local path, or a remote one if the location is a URL.

    Raises:
        ImportError: If the library of the URL's protocol is not installed.
        ValueError: If the protocol is unknown.
    """
    if isinstance(location, RemotePath):
        return location
    return RemotePath(os.fspath(location)) if is_url(location) else Path(location)


def local_path(location: str | os.PathLike[str]) -> Path:
    """Return a local path itself, and of a remote folder the folder of its local copies, complete or not."""
    opened = open_location(location)
    return opened.mirror if isinstance(opened, RemotePath) else opened


def children(folder: Location) -> list[Path] | list[RemotePath]:
    """Return the files and folders of a folder; none if it does not exist."""
    if isinstance(folder, RemotePath):
        return list(folder.iterdir())
    return list(folder.iterdir()) if folder.is_dir() else []


def make_folder(folder: Location) -> None:
    """Create a folder with its parents; a remote one comes with its first file."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def replaced_file(location: Location) -> Iterator[Path]:
    """Yield a temporary path, whose content replaces a file in one step if the block ends without an error."""
    if isinstance(location, Path):
        with atomic_write(location) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory(prefix="ciea-hf-") as folder:
        temporary = Path(folder) / location.name
        yield temporary
        location.upload(temporary)


def replace_json(location: Location, content: Any, indent: int | None = 2) -> None:
    """Write JSON in one step; see [`ciea_hf.files.write_json`]."""
    if isinstance(location, Path):
        write_json(location, content, indent)
        return
    with replaced_file(location) as temporary:
        write_json(temporary, content, indent)
