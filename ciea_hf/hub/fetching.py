"""Fetching a model from the Hub, checked before anything of it is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ciea_hf.hub.checks import check_folder, pickle_problems
from ciea_hf.hub.errors import HUB_EXCEPTIONS, explain, is_transient
from ciea_hf.hub.patience import with_patience
from ciea_hf.hub.remote import RemoteState, read_remote

if TYPE_CHECKING:
    import os

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
        folder: Where to put the files; Hugging Face's cache if None.
        token: As in huggingface_hub; the token of `hf auth login` if None.
        local_files_only: Whether to look in the cache only.

    Returns:
        The folder, for `CIEAModel.from_pretrained` and `SentenceTransformer`.

    Raises:
        HubError: If the Hub refuses or cannot be reached, and the cache does not hold the model.
        ValueError: If the repository is not a whole CIEA model, or holds pickles, code of elsewhere or the like.
    """
    chosen = revision or constants.DEFAULT_REVISION
    source = Source(HfApi(token=token), repo_id, chosen, None if folder is None else Path(folder))
    remote = None
    if not local_files_only and not constants.HF_HUB_OFFLINE:
        remote = with_patience(source.list_or_cached, repo_id, failed="was not fetched")
    problems = pickle_problems(remote.files if remote else ())
    if problems:
        raise ValueError(f"{repo_id} is refused, and nothing of it was fetched: {'; '.join(problems)}")
    place = with_patience(lambda: source.fetch(local_files_only=remote is None), repo_id, failed="was not fetched")
    if remote is not None:
        _check_contents(place, remote)
    check_folder(place)
    return place


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a repository at a revision, and the folder for its files."""

    api: HfApi
    repo_id: str
    revision: str
    folder: Path | None

    def fetch(self, local_files_only: bool) -> Path:
        """Bring the files here, and return their folder."""
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


def _check_contents(folder: Path, remote: RemoteState) -> None:
    """Compare what was fetched with what the Hub lists, by size and hash."""
    wrong = [
        name for name, file in remote.files.items() if not (folder / name).is_file() or not file.equals(folder / name)
    ]
    if wrong:
        raise ValueError(f"{folder}: {', '.join(wrong)} missing or not what the Hub lists; delete and fetch again")
