"""Downloads a model from the Hub and checks it before anything is loaded."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ciea_hf.files import write_json
from ciea_hf.hub.checks import check_folder, pickle_problems
from ciea_hf.hub.errors import HUB_EXCEPTIONS, explain, is_transient
from ciea_hf.hub.remote import RemoteState, read_remote
from ciea_hf.hub.retry import call_with_retries

if TYPE_CHECKING:
    import os

RECEIPT = Path(".cache", "huggingface", "ciea-pull.json")  # next to the metadata that huggingface_hub keeps

logger = logging.getLogger(__name__)


def pull(
    repo_id: str,
    *,
    revision: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Download a model from the Hub, and check that it is complete and loads without unpickling anything.

    Cached files are not downloaded again. If the Hub is unreachable, a cached model is used.

    Args:
        repo_id: Repository, as `owner/name`.
        revision: Branch, tag or commit hash; `main` if None. The hash of a commit whose code you have read is safest.
        folder: Folder for the files; the Hugging Face cache if None. Files of an earlier pull that the repository no
            longer has are removed.
        token: Access token, as in huggingface_hub; the token of `hf auth login` if None.
        local_files_only: Whether to use only the cache.

    Returns:
        The folder, for `CIEAModel.from_pretrained` and `SentenceTransformer`.

    Raises:
        HubError: If the Hub rejects the request, or is unreachable and the model is not cached.
        FileExistsError: If `folder` contains anything but a pull of this repository.
        ValueError: If the repository is not a complete CIEA model, or contains pickles or refers to foreign code.
    """
    chosen = revision or constants.DEFAULT_REVISION
    snapshot = RemoteSnapshot(HfApi(token=token), repo_id, chosen, None if folder is None else Path(folder))
    snapshot.check_folder_is_free()
    remote = None
    if not local_files_only and not constants.HF_HUB_OFFLINE:
        remote = call_with_retries(snapshot.list_or_cached, repo_id, failed="was not downloaded")
    problems = pickle_problems(remote.files if remote else ())
    if problems:
        raise ValueError(f"{repo_id} is unsafe and was not downloaded: {'; '.join(problems)}")
    if remote is not None:
        snapshot.claim(remote)
    location = call_with_retries(
        lambda: snapshot.download(local_files_only=remote is None), repo_id, failed="was not downloaded"
    )
    if remote is not None:
        snapshot.remove_stale_files(remote)
        _check_contents(location, remote)
    check_folder(location)
    return location


@dataclass(frozen=True)
class RemoteSnapshot:
    """A repository at a revision, and the local folder for its files.

    Attributes:
        api: Client of the Hub.
        repo_id: Repository, as `owner/name`.
        revision: Branch, tag or commit hash.
        folder: Folder for the files; the Hugging Face cache if None.
    """

    api: HfApi
    repo_id: str
    revision: str
    folder: Path | None

    def check_folder_is_free(self) -> None:
        """Check that the folder is empty or contains a pull of this repository.

        Raises:
            FileExistsError: If it contains anything else.
        """
        if self.folder is None or not self.folder.exists():
            return
        holds_files = not self.folder.is_dir() or any(not path.name.startswith(".") for path in self.folder.iterdir())
        if holds_files and self._read_receipt().get("repo_id") != self.repo_id:
            raise FileExistsError(f"{self.folder} is not a pull of {self.repo_id}: choose a new or empty folder")

    def claim(self, remote: RemoteState) -> None:
        """Record the repository and its files before the download, so that an interrupted pull can continue."""
        if self.folder is not None:
            self._write_receipt(sorted({*self._read_receipt().get("files", ()), *remote.files}))

    def remove_stale_files(self, remote: RemoteState) -> None:
        """Remove files of an earlier pull that the repository no longer has, and record the commit."""
        if self.folder is None:
            return
        for name in set(self._read_receipt().get("files", ())) - remote.files.keys():
            if _is_inside(name):
                (self.folder / name).unlink(missing_ok=True)
                logger.info("removed %s: no longer in %s", self.folder / name, self.repo_id)
        self._write_receipt(sorted(remote.files), self.revision, remote.commit)

    def _write_receipt(self, files: list[str], revision: str | None = None, commit: str | None = None) -> None:
        content = {"repo_id": self.repo_id, "revision": revision, "commit": commit, "files": files}
        write_json(self._receipt_file, content, indent=None)

    def _read_receipt(self) -> dict[str, Any]:
        """Read the record of the last pull into the folder; empty if it is missing or unreadable."""
        try:
            content = json.loads(self._receipt_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        return content if isinstance(content, dict) else {}

    @property
    def _receipt_file(self) -> Path:
        return Path(str(self.folder)) / RECEIPT

    def download(self, local_files_only: bool) -> Path:
        """Download the files and return their folder.

        Args:
            local_files_only: Whether to use only files that are already here.

        Raises:
            LocalEntryNotFoundError: If `local_files_only` is set and the files are not here.
        """
        # With `local_dir`, huggingface_hub would accept any folder here, whatever repository its files come from.
        if local_files_only and self.folder is not None:
            receipt = self._read_receipt()
            if self.revision not in (receipt.get("revision"), receipt.get("commit")):
                raise LocalEntryNotFoundError(f"{self.folder} does not contain {self.repo_id} at {self.revision}")
            return self.folder
        location = snapshot_download(
            self.repo_id,
            revision=self.revision,
            local_dir=self.folder,
            token=self.api.token,
            local_files_only=local_files_only,
        )
        return Path(location)

    def list_or_cached(self) -> RemoteState | None:
        """List the repository; None if the Hub is unreachable and the model is cached."""
        try:
            return read_remote(self.api, self.repo_id, self.revision)
        except HUB_EXCEPTIONS as error:
            if not is_transient(error) or not self._is_cached():
                raise
            logger.warning("%s; using the cached model", explain(error, self.repo_id))
            return None

    def _is_cached(self) -> bool:
        try:
            self.download(local_files_only=True)
        except LocalEntryNotFoundError:
            return False
        return True


def _is_inside(name: str) -> bool:
    """Return whether a relative path stays inside its folder."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _check_contents(folder: Path, remote: RemoteState) -> None:
    """Compare the downloaded files with the listing of the Hub, by size and hash."""
    wrong = []
    for name, file in remote.files.items():
        if not (folder / name).is_file() or not file.equals(folder / name):
            wrong.append(name)
    if wrong:
        raise ValueError(f"{folder}: {', '.join(wrong)} missing or different on the Hub; delete and pull again")
