"""The current state of a repository on the Hub, for comparison with local files."""

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

CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        size: Size in bytes.
        oid: SHA-1 of the Git blob.
        sha256: SHA-256 of the content for files in large file storage, else None.
    """

    size: int
    oid: str
    sha256: str | None

    def equals(self, content: Path | bytes) -> bool:
        """Return whether a local file or content is the same; sizes are compared before hashes."""
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
        commit: Hash of the commit.
        files: Files by path.
        private: Whether the repository is private.
    """

    commit: str
    files: Mapping[str, RemoteFile]
    private: bool


def read_remote(api: HfApi, repo_id: str, revision: str) -> RemoteState:
    """List a repository at a revision.

    Args:
        api: Client of the Hub.
        repo_id: Repository, as `owner/name`.
        revision: Branch, tag, reference of a pull request, or commit hash.

    Returns:
        The commit of the revision and its files.

    Raises:
        HfHubHTTPError: If the repository or revision does not exist or is not accessible.
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
    """List a branch; None if the repository does not have it."""
    try:
        return read_remote(api, repo_id, branch)
    except RevisionNotFoundError:
        return None


def _digest(content: Path | bytes, digest: hashlib._Hash) -> str:
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest()
    with content.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
