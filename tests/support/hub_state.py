"""State of the Hub in memory: repositories with commits and references, and errors that tests inject."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

LFS_MIN_BYTES = 1 << 20  # larger files use large file storage whatever their suffix
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return path.endswith((".safetensors", ".bin")) or size >= LFS_MIN_BYTES


class Rejection(Exception):  # noqa: N818
    """An error response."""

    def __init__(
        self, status: int, message: str, code: str | None = None, content: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.content = status, message, code, content


@dataclass
class Repository:
    """A repository.

    Attributes:
        private: Whether reading needs a token.
        commits: Files of each commit, by hash.
        log: Parent and message of each commit, by hash.
        refs: Commit of each reference.
    """

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    log: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add_commit(self, ref: str, files: dict[str, bytes], message: str, parent: str | None) -> str:
        listing = sorted((path, sha1(content)) for path, content in files.items())
        commit = sha1(repr((parent, message, listing, len(self.log))).encode())
        self.commits[commit], self.log[commit], self.refs[ref] = files, (parent, message), commit
        return commit

    def resolve(self, revision: str) -> str:
        for name in (revision, f"refs/heads/{revision}"):
            if name in self.refs:
                return self.refs[name]
        if revision in self.commits:
            return revision
        raise Rejection(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def full_ref(self, revision: str) -> str:
        return revision if revision in self.refs else f"refs/heads/{revision}"

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.resolve(revision)]


@dataclass
class Fault:
    """An error to inject.

    Attributes:
        where: Pattern on "METHOD /path".
        status: HTTP status; None drops the connection.
        times: Number of requests that fail.
        message: Message of the response.
        after: Whether the request is executed and only its response is lost.
    """

    where: str
    status: int | None = None
    times: int = 1
    message: str = "injected"
    after: bool = False


def apply_operations(
    files: dict[str, bytes], lines: list[dict[str, Any]], objects: dict[str, bytes]
) -> dict[str, bytes]:
    """Apply the operations of a commit to the files of its parent."""
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in objects:
                raise Rejection(400, f"LFS pointer {value['oid']} points to nothing")
            files[value["path"]] = objects[value["oid"]]
        elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
            raise Rejection(404, "A file with this name doesn't exist", "EntryNotFound")
    return files


def oid(path: str, content: bytes) -> str:
    return sha256(content) if is_lfs(path, len(content)) else sha1(content)


def upload_mode(path: str, size: int, files: dict[str, bytes]) -> dict[str, Any]:
    """Return how to upload a file, and the hash of the version that the repository has."""
    mode = "lfs" if is_lfs(path, size) else "regular"
    current = oid(path, files[path]) if path in files else None
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": current}


def tree_entry(path: str, content: bytes) -> dict[str, Any]:
    """Return the entry of a file in the listing of a tree."""
    plain = {"type": "file", "path": path, "size": len(content), "oid": sha1(content)}
    if not is_lfs(path, len(content)):
        return plain
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
    lfs = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
    return {**plain, "oid": sha1(pointer.encode()), "lfs": lfs}
