"""Remote folders for tests: in memory, or on the disk under a protocol of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

if TYPE_CHECKING:
    from pathlib import Path


class DiskFileSystem(LocalFileSystem):  # type: ignore[misc, unused-ignore]  # fsspec is not typed
    """The local disk as `disk:///folder`, which several processes see."""

    protocol = "disk"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(str(path).removeprefix("disk://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"disk://{self._strip_protocol(name)}"


fsspec.register_implementation("disk", DiskFileSystem, clobber=True)


def disk_url(folder: Path) -> str:
    """URL of a folder of the disk."""
    return f"disk://{folder}"


def remote_content(url: str) -> dict[str, bytes]:
    """All files of a remote folder, by their path in it."""
    system, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root).lstrip("/"): system.cat_file(path) for path in sorted(system.find(root))}


def clear_memory() -> None:
    """Remove what is in the file system `memory://`."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
