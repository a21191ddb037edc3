"""What the Hub in memory keeps: repositories, their commits and references; and the faults that tests inject."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

LFS_FROM = 1 << 20  # bytes from which a file goes to large file storage, whatever its ending
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return path.endswith((".safetensors", ".bin")) or size >= LFS_FROM


class Refusal(Exception):  # noqa: N818
    """An answer that is an error."""

    def __init__(
        self, status: int, message: str, code: str | None = None, content: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.content = status, message, code, content


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    log: dict[str, tuple[str | None, str]] = field(default_factory=dict)  # commit -> parent, message
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
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.resolve(revision)]


@dataclass
class Fault:
    """What goes wrong, how often, and where: a pattern on "METHOD /path"."""

    where: str
    status: int | None = None  # None drops the connection
    times: int = 1
    message: str = "injected"
    after: bool = False  # the request is carried out, only its answer is lost


def applied(files: dict[str, bytes], lines: list[dict[str, Any]], objects: dict[str, bytes]) -> dict[str, bytes]:
    """The files after a commit's operations."""
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in objects:
                raise Refusal(400, f"LFS pointer {value['oid']} points to nothing")
            files[value["path"]] = objects[value["oid"]]
        elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
    return files


def oid(path: str, content: bytes) -> str:
    return sha256(content) if is_lfs(path, len(content)) else sha1(content)


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the tree lists it."""
    plain = {"type": "file", "path": path, "size": len(content), "oid": sha1(content)}
    if not is_lfs(path, len(content)):
        return plain
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
    lfs = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
    return {**plain, "oid": sha1(pointer.encode()), "lfs": lfs}
