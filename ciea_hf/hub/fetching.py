"""Fetching a model from the Hub, checked before anything of it is loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ciea_hf.hub.checks import check_folder, pickle_problems
from ciea_hf.hub.errors import HUB_EXCEPTIONS, HubError, explain, is_transient
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
    api = HfApi(token=token)
    chosen = revision or constants.DEFAULT_REVISION
    remote = None if local_files_only or constants.HF_HUB_OFFLINE else _list(api, repo_id, chosen)
    if remote is not None:
        problems = pickle_problems(remote.files)
        if problems:
            raise ValueError(f"{repo_id} is refused, and nothing of it was fetched: {'; '.join(problems)}")
    try:
        place = Path(
            snapshot_download(
                repo_id,
                revision=chosen,
                local_dir=None if folder is None else Path(folder),
                token=token,
                local_files_only=remote is None,
            )
        )
    except LocalEntryNotFoundError as error:
        reason = "and the Hub was not asked" if local_files_only else "and the Hub cannot be reached"
        raise HubError(f"{repo_id} at {chosen} is not in the cache, {reason}") from error
    except HUB_EXCEPTIONS as error:
        raise HubError(f"{repo_id} was not fetched: {explain(error, repo_id)}") from error
    if remote is not None:
        _check_contents(place, remote)
    check_folder(place)
    return place


def _list(api: HfApi, repo_id: str, revision: str) -> RemoteState | None:
    """List the repository; None, for the cache to serve, where the Hub cannot be reached."""
    try:
        return read_remote(api, repo_id, revision)
    except HUB_EXCEPTIONS as error:
        reason = explain(error, repo_id)
        if not is_transient(error):
            raise HubError(f"{repo_id} was not fetched: {reason}") from error
        logger.warning("%s; looking in the cache", reason)
        return None


def _check_contents(folder: Path, remote: RemoteState) -> None:
    """Compare what was fetched with what the Hub lists, by size and hash."""
    wrong = [
        name for name, file in remote.files.items() if not (folder / name).is_file() or not file.equals(folder / name)
    ]
    if wrong:
        raise ValueError(f"{folder}: {', '.join(wrong)} missing or not what the Hub lists; delete and fetch again")
