"""Explains errors of the Hub in one line, with the remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx2  # the HTTP library of huggingface_hub, which does not wrap its connection errors
from huggingface_hub import get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSIENT_STATUS = frozenset((408, 429, 500, 502, 503, 504))
PRECONDITION_FAILED = 412
STORAGE_FULL = re.compile(r"quota|storage limit|storage is full|out of storage|insufficient storage", re.IGNORECASE)
# All errors that huggingface_hub raises: HTTP errors are subclasses of OSError, uploads wrap theirs in a RuntimeError,
# and rejected metadata or LFS objects raise a ValueError.
HUB_EXCEPTIONS = (OSError, httpx2.HTTPError, RuntimeError, ValueError)


class HubError(OSError):
    """The Hub rejected a request or is unreachable; the message names the remedy."""


class CommitOutcomeUnknownError(HubError):
    """The response of the Hub was lost, so that a pull request may or may not have been opened."""


def root_cause(error: BaseException) -> BaseException:
    """Return the HTTP or connection error that caused an error; the error itself if there is none."""
    for candidate in _chain(error):
        if isinstance(candidate, HfHubHTTPError | httpx2.TransportError):
            return candidate
    return error


def is_transient(error: BaseException) -> bool:
    """Return whether a retry can succeed: after lost connections, 429, 5xx, or a concurrent commit of somebody else."""
    cause = root_cause(error)
    if isinstance(cause, httpx2.TransportError):
        return True
    status = _status(cause)
    return status == PRECONDITION_FAILED or (status in TRANSIENT_STATUS and not _is_full(cause))


def explain(error: BaseException, repo_id: str, writing: bool = False) -> str:
    """Explain an error in one line, with the remedy.

    Args:
        error: Error raised by huggingface_hub.
        repo_id: Repository of the request.
        writing: Whether the request was meant to change the repository.

    Returns:
        The explanation, with the message of the Hub if there is one.
    """
    cause = root_cause(error)
    message = _message(cause)
    if isinstance(cause, OfflineModeIsEnabled):
        return "offline mode is on: unset HF_HUB_OFFLINE to reach the Hub"
    if isinstance(cause, httpx2.TransportError):
        return f"the Hub is unreachable or the connection was lost ({type(cause).__name__}: {cause})"
    if isinstance(cause, LocalEntryNotFoundError):
        return "not found in the cache, and the Hub was not contacted"
    status = _status(cause)
    if status is None:
        return message
    if _is_full(cause):
        owner = repo_id.split("/")[0]
        return f"the storage of {owner} on the Hub is full: delete files or upgrade the plan{_quoted(message)}"
    if isinstance(cause, RevisionNotFoundError):
        return f"revision not found in {repo_id}: pass a branch, a tag or a commit{_quoted(message)}"
    if isinstance(cause, EntryNotFoundError):
        return f"file not found in {repo_id}{_quoted(message)}"
    return _by_status(status, repo_id, writing) + _quoted(message)


def _by_status(status: int, repo_id: str, writing: bool) -> str:
    login = "the token is invalid; log in again" if get_token() else "log in"
    no_access = (
        f"the token has no write access to {repo_id}: use one with the role 'write', of a member of the organization"
        if writing
        else f"the token has no read access to {repo_id}: request access on the page of the repository"
    )
    explanations = {
        401: f"authentication failed, or {repo_id} is private or does not exist: {login} with `hf auth login`, or set "
        "HF_TOKEN",
        403: no_access,
        404: f"repository {repo_id} not found, or the token has no access to it",
        PRECONDITION_FAILED: f"{repo_id} was changed by concurrent commits",
        429: "rate limit reached",
    }
    kind = "server error" if status >= 500 else "status"
    return explanations.get(status, f"the Hub returned {kind} {status}")


def _is_full(cause: BaseException) -> bool:
    status = _status(cause)
    return status in (402, 507) or (status in (400, 403, 413) and STORAGE_FULL.search(_message(cause)) is not None)


def _status(cause: BaseException) -> int | None:
    return cause.response.status_code if isinstance(cause, HfHubHTTPError) else None


def _message(cause: BaseException) -> str:
    """Return the message of the Hub, or else of the error, in one line."""
    text = (cause.server_message if isinstance(cause, HfHubHTTPError) else str(cause)) or ""
    return " ".join(text.split())


def _quoted(message: str) -> str:
    return f" (message of the Hub: {message.rstrip('.')})" if message else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
