"""Uploads a model to the Hub in one commit, sending only new and changed files."""

from __future__ import annotations

import fnmatch
import inspect
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, constants, hf_hub_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ciea_hf.hub.errors import HUB_EXCEPTIONS, CommitOutcomeUnknownError, explain, is_transient
from ciea_hf.hub.remote import RemoteState, read_branch, read_remote
from ciea_hf.hub.retry import call_with_retries
from ciea_hf.hub.staging import StagedFiles, staged, write_staged
from ciea_hf.model_cards.card import CARD_FILE, is_generated
from ciea_hf.model_cards.run_files import RESULTS_FILE, RUN_FILE

if TYPE_CHECKING:
    import os

    from huggingface_hub import CommitInfo

    from ciea_hf.modeling import CIEAModel

logger = logging.getLogger(__name__)

# Weights of an earlier push that loading would prefer to the new ones, or read in addition.
OLD_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json")
SAVE_OPTIONS = ("max_shard_size", "state_dict")
OLD_RECORDS = (RUN_FILE, RESULTS_FILE)  # they describe the replaced weights


@dataclass(frozen=True)
class PushResult:
    """Result of a push.

    Attributes:
        url: URL of the commit or of the opened pull request; the folder for a dry run.
        commit: Hash of the commit that contains the model; None for a dry run.
        sent: Paths of the uploaded files.
        deleted: Paths of removed files of an earlier push.
        unchanged: Paths of files that the repository already had.
    """

    url: str
    commit: str | None
    sent: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """Destination of a push.

    Attributes:
        repo_id: Repository, as `owner/name`.
        revision: Branch, or reference of a pull request.
        create_pr: Whether to open a pull request.
        message: Commit message.
    """

    repo_id: str
    revision: str
    create_pr: bool
    message: str


@dataclass(frozen=True)
class Plan:
    """Operations of the single commit of a push.

    Attributes:
        parent: Hash of the parent commit.
        additions: Files to add or replace.
        deletions: Files to delete.
        unchanged: Paths of files that the repository already has.
    """

    parent: str
    additions: list[CommitOperationAdd]
    deletions: list[CommitOperationDelete]
    unchanged: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the repository is already up to date."""
        return not self.additions and not self.deletions


def push(
    model_or_folder: CIEAModel | str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    dry_run: str | os.PathLike[str] | None = None,
    token: str | None = None,
    **save_options: Any,
) -> PushResult:
    """Upload a complete model in one commit: weights, configuration, processor, code and model card.

    Files that the repository already has are not sent again; if it has all of them, no commit is made. Weights of an
    earlier push are removed in the same commit. A generated card never replaces one written by hand. The branch does
    not change before the commit; after a failure, the same call continues where the last one stopped.

    Args:
        model_or_folder: Model with its processor, or folder written by `save_pretrained`.
        repo_id: Repository, as `owner/name`; created if it does not exist.
        private: Whether a new repository is private; the default of its owner if None.
        revision: Branch, created if it does not exist, or reference of a pull request (`refs/pr/1`); `main` if None.
        create_pr: Whether to open a pull request against `revision` instead of committing to it.
        commit_message: First line of the commit message, and title of the pull request.
        dry_run: New folder for the files of the upload; nothing is sent.
        token: Access token; `HF_TOKEN` or the token of `hf auth login` if None.
        **save_options: Arguments of `save_pretrained` for a model, such as `max_shard_size="2GB"`.

    Returns:
        The commit, and the paths of the sent, deleted and unchanged files.

    Raises:
        HubError: If the Hub rejects the upload or is unreachable; the message names the reason and the remedy.
        FileNotFoundError: If the folder does not exist.
        ValueError: If the folder is not a complete CIEA model or contains pickles, or an argument is invalid.
        TypeError: If `save_options` are unknown, or given for a folder.
    """
    _check_names(repo_id, revision)
    if unknown := sorted(save_options.keys() - SAVE_OPTIONS):
        valid = [name for name in inspect.signature(push).parameters if name not in ("model_or_folder", "save_options")]
        raise TypeError(
            f"unknown argument(s) {', '.join(unknown)}; valid arguments: {', '.join([*valid, *SAVE_OPTIONS])}"
        )
    with staged(model_or_folder, repo_id, save_options) as files:
        if dry_run is not None:
            write_staged(files, Path(dry_run))
            return PushResult(url=str(dry_run), commit=None, sent=tuple(files.contents))
        message = commit_message or "Publish a CIEA model"
        target = Target(repo_id, revision or constants.DEFAULT_REVISION, create_pr, message)
        try:
            return call_with_retries(
                lambda: _push_once(HfApi(token=token), files, target, private),
                repo_id,
                failed="was not pushed",
                advice=_how_to_continue(repo_id),
                writing=True,
            )
        except KeyboardInterrupt:
            logger.warning("Interrupted. %s", _how_to_continue(repo_id))
            raise


def _push_once(api: HfApi, files: StagedFiles, target: Target, private: bool | None) -> PushResult:
    try:
        branch = read_branch(api, target.repo_id, target.revision)
    except RepositoryNotFoundError:
        api.create_repo(target.repo_id, private=private, exist_ok=True)
        branch = read_branch(api, target.repo_id, target.revision)
    state = branch or read_remote(api, target.repo_id, constants.DEFAULT_REVISION)
    if private and not state.private:
        raise ValueError(f"{target.repo_id} exists and is public: make it private first, or omit `private`")
    plan = _plan(api, files, state, target)
    if branch is not None and plan.is_empty:
        url = f"{api.endpoint}/{target.repo_id}/tree/{state.commit}"
        return PushResult(url=url, commit=state.commit, unchanged=plan.unchanged)
    if any(addition.path_in_repo == CARD_FILE for addition in plan.additions):
        _validate_card(files.card)  # before the weights are uploaded, because invalid metadata fails the commit
    api.preupload_lfs_files(
        target.repo_id,
        additions=plan.additions,
        revision=target.revision if branch is not None else constants.DEFAULT_REVISION,
        create_pr=target.create_pr,
    )
    if branch is None:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
    info = _commit(api, plan, target)
    return PushResult(
        url=info.pr_url or info.commit_url,
        commit=info.oid,
        sent=tuple(addition.path_in_repo for addition in plan.additions),
        deleted=tuple(deletion.path_in_repo for deletion in plan.deletions),
        unchanged=plan.unchanged,
    )


def _validate_card(card: str) -> None:
    try:
        ModelCard(card).validate()
    except ValueError as error:
        raise ValueError(f"the Hub rejects the metadata of {CARD_FILE}: {error}") from error


def _commit(api: HfApi, plan: Plan, target: Target) -> CommitInfo:
    try:
        return api.create_commit(
            target.repo_id,
            operations=[*plan.deletions, *plan.additions],
            commit_message=target.message,
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=plan.parent,
        )
    except HUB_EXCEPTIONS as error:
        if target.create_pr and is_transient(error):
            raise CommitOutcomeUnknownError(
                f"{explain(error, target.repo_id, writing=True)}: the pull request may have been opened anyway; "
                f"check {api.endpoint}/{target.repo_id}/discussions before you push again"
            ) from error
        raise


def _plan(api: HfApi, files: StagedFiles, state: RemoteState, target: Target) -> Plan:
    """Compare the files of the upload with the repository."""
    same = {name for name, content in files.contents.items() if _is_unchanged(state, name, content)}
    weights_differ = any(name not in same for name in files.contents if name.endswith(".safetensors"))
    if CARD_FILE not in same and _keeps_remote_card(api, files, state, target, weights_differ):
        same.add(CARD_FILE)
    patterns = OLD_WEIGHTS + (OLD_RECORDS if weights_differ else ())
    old = [name for name in state.files if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    deletions = [CommitOperationDelete(path_in_repo=name) for name in old if name not in files.contents]
    additions = []
    for name, content in files.contents.items():
        if name not in same:
            additions.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
    return Plan(parent=state.commit, additions=additions, deletions=deletions, unchanged=tuple(sorted(same)))


def _is_unchanged(state: RemoteState, name: str, content: Path | bytes) -> bool:
    return name in state.files and state.files[name].equals(content)


def _keeps_remote_card(
    api: HfApi, files: StagedFiles, state: RemoteState, target: Target, weights_differ: bool
) -> bool:
    """Return whether the remote card stays: it was written by hand, or a model in memory has the same weights."""
    if CARD_FILE not in state.files or not files.has_generated_card:
        return False
    if files.from_memory and not weights_differ:
        return True
    card = hf_hub_download(target.repo_id, CARD_FILE, revision=state.commit, token=api.token)
    text = ModelCard.load(card).text
    return bool(text.strip()) and not is_generated(text)


def _check_names(repo_id: str, revision: str | None) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"`repo_id` must be like 'owner/name'; got {repo_id!r}: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"`repo_id` must be like 'owner/name'; got {repo_id!r}")
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(f"`revision` must be a branch or the reference of a pull request; got the commit {revision!r}")


def _how_to_continue(repo_id: str) -> str:
    return (
        f"Nothing was committed; {repo_id} is unchanged. Run the same command again to continue; uploaded files are "
        "not sent twice."
    )
