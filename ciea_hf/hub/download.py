"""Fetching a model from the Hub, checked before anything of it is loaded."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ciea_hf.hub.checks import check_folder, pickle_problems
from ciea_hf.hub.errors import HUB_EXCEPTIONS, explain, is_transient
from ciea_hf.hub.remote import RemoteState, read_remote
from ciea_hf.hub.retry import with_patience
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    import os

RECEIPT = Path(".cache", "huggingface", "ciea-pull.json")  # beside huggingface_hub's own notes

logger = logging.getLogger(__name__)


def pull(
    repo_id: str,
    *,
    revision: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch a model from the Hub, and check that it is whole and holds nothing to be unpickled.

    What is in the cache already is not fetched again; without a network the cache serves alone.

    Args:
        repo_id: The repository, `owner/name`.
        revision: A branch, a tag or, best, the hash of the commit whose code you have read; `main` if None.
        folder: Where to put the files; Hugging Face's cache if None. What an earlier pull put there, and the repository
            no longer has, is removed.
        token: As in huggingface_hub; the token of `hf auth login` if None.
        local_files_only: Whether to look in the cache only.

    Returns:
        The folder, for `CIEAModel.from_pretrained` and `SentenceTransformer`.

    Raises:
        HubError: If the Hub refuses or cannot be reached, and the cache does not hold the model.
        FileExistsError: If `folder` holds something else than a pull of this repository.
        ValueError: If the repository is not a whole CIEA model, or holds pickles, code of elsewhere or the like.
    """
    chosen = revision or constants.DEFAULT_REVISION
    source = RemoteSnapshot(HfApi(token=token), repo_id, chosen, None if folder is None else Path(folder))
    source.check_folder_is_free()
    remote = None
    if not local_files_only and not constants.HF_HUB_OFFLINE:
        remote = with_patience(source.list_or_cached, repo_id, failed="was not fetched")
    problems = pickle_problems(remote.files if remote else ())
    if problems:
        raise ValueError(f"{repo_id} is refused, and nothing of it was fetched: {'; '.join(problems)}")
    if remote is not None:
        source.claim(remote)
    place = with_patience(lambda: source.fetch(local_files_only=remote is None), repo_id, failed="was not fetched")
    if remote is not None:
        source.settle(remote)
        _check_contents(place, remote)
    check_folder(place)
    return place


@dataclass(frozen=True)
class RemoteSnapshot:
    """Where a model comes from: a repository at a revision, and the folder for its files."""

    api: HfApi
    repo_id: str
    revision: str
    folder: Path | None

    def check_folder_is_free(self) -> None:
        """See that the folder is empty, or holds this repository.

        Raises:
            FileExistsError: If it holds something else.
        """
        if self.folder is None or not self.folder.exists():
            return
        holds_files = not self.folder.is_dir() or any(not path.name.startswith(".") for path in self.folder.iterdir())
        if holds_files and self._receipt().get("repo_id") != self.repo_id:
            raise FileExistsError(f"{self.folder} holds no pull of {self.repo_id}: name a new or empty folder")

    def claim(self, remote: RemoteState) -> None:
        """Note whose files the folder is going to hold, so that an interrupted pull can go on."""
        if self.folder is not None:
            self._note(sorted({*self._receipt().get("files", ()), *remote.files}))

    def settle(self, remote: RemoteState) -> None:
        """Remove what an earlier pull left in the folder and the repository no longer has; note what is there."""
        if self.folder is None:
            return
        for name in set(self._receipt().get("files", ())) - remote.files.keys():
            if _is_inside(name):
                (self.folder / name).unlink(missing_ok=True)
                logger.info("removed %s, which %s no longer has", self.folder / name, self.repo_id)
        self._note(sorted(remote.files), self.revision, remote.commit)

    def _note(self, files: list[str], revision: str | None = None, commit: str | None = None) -> None:
        content = {"repo_id": self.repo_id, "revision": revision, "commit": commit, "files": files}
        with atomic_write(self._receipt_file) as path:
            path.write_text(json.dumps(content), encoding="utf-8")

    def _receipt(self) -> dict[str, Any]:
        """What pulls have put into the folder; empty where there was none, or its note cannot be read."""
        try:
            content = json.loads(self._receipt_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        return content if isinstance(content, dict) else {}

    @property
    def _receipt_file(self) -> Path:
        return Path(str(self.folder)) / RECEIPT

    def fetch(self, local_files_only: bool) -> Path:
        """Bring the files here, and return their folder.

        Raises:
            LocalEntryNotFoundError: If nothing is to be fetched, and they are not here.
        """
        if local_files_only and self.folder is not None:  # of which huggingface_hub would not ask what it holds
            receipt = self._receipt()
            if self.revision not in (receipt.get("revision"), receipt.get("commit")):
                raise LocalEntryNotFoundError(f"{self.folder} does not hold {self.repo_id} at {self.revision}")
            return self.folder
        place = snapshot_download(
            self.repo_id,
            revision=self.revision,
            local_dir=self.folder,
            token=self.api.token,
            local_files_only=local_files_only,
        )
        return Path(place)

    def list_or_cached(self) -> RemoteState | None:
        """List the repository; None where the Hub cannot be reached and the cache can serve instead."""
        try:
            return read_remote(self.api, self.repo_id, self.revision)
        except HUB_EXCEPTIONS as error:
            if not is_transient(error) or not self._is_cached():
                raise
            logger.warning("%s; the model is taken from the cache", explain(error, self.repo_id))
            return None

    def _is_cached(self) -> bool:
        try:
            self.fetch(local_files_only=True)
        except LocalEntryNotFoundError:
            return False
        return True


def _is_inside(name: str) -> bool:
    """Whether a relative path stays in its folder."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _check_contents(folder: Path, remote: RemoteState) -> None:
    """Compare what was fetched with what the Hub lists, by size and hash."""
    wrong = [
        name for name, file in remote.files.items() if not (folder / name).is_file() or not file.equals(folder / name)
    ]
    if wrong:
        raise ValueError(f"{folder}: {', '.join(wrong)} missing or not what the Hub lists; delete and fetch again")
