"""A repository on the Hub as it stands, and how local files differ from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from huggingface_hub import HfApi

CHUNK = 1 << 22


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        size: In bytes.
        oid: Its Git blob's SHA-1.
        sha256: Of its content, for files in large file storage, else None.
    """

    size: int
    oid: str
    sha256: str | None

    def equals(self, content: Path | bytes) -> bool:
        """Whether a local file, or content, is the same; sizes are compared before hashes."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size != self.size:
            return False
        if self.sha256 is not None:
            return _digest(content, hashlib.sha256()) == self.sha256
        blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        return _digest(content, blob) == self.oid


@dataclass(frozen=True)
class RemoteState:
    """One commit of a repository.

    Attributes:
        commit: Its hash.
        files: By path.
        private: Whether the repository is private.
    """

    commit: str
    files: Mapping[str, RemoteFile]
    private: bool


def read_remote(api: HfApi, repo_id: str, revision: str) -> RemoteState:
    """List a repository at a revision.

    Args:
        api: The client.
        repo_id: The repository.
        revision: A branch, a tag, a pull request's reference or a commit.

    Returns:
        Its commit and files.

    Raises:
        HfHubHTTPError: If it does not exist, or may not be seen.
    """
    info = api.model_info(repo_id, revision=revision)
    commit = str(info.sha)
    files = {
        entry.path: RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in api.list_repo_tree(repo_id, revision=commit, recursive=True)
        if isinstance(entry, RepoFile)
    }
    return RemoteState(commit, files, bool(info.private))


def read_branch(api: HfApi, repo_id: str, branch: str) -> RemoteState | None:
    """List a branch; None where the repository has no such branch."""
    try:
        return read_remote(api, repo_id, branch)
    except RevisionNotFoundError:
        return None


def _digest(content: Path | bytes, digest: hashlib._Hash) -> str:
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest()
    with content.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
