"""What went wrong on the Hub, said so that one knows what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx2  # huggingface_hub's own HTTP library; its connection errors reach the caller as they are
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
CHANGED_MEANWHILE = 412
FULL = re.compile(r"quota|storage limit|storage is full|out of storage|insufficient storage", re.IGNORECASE)
# everything that a call of huggingface_hub raises: HTTP errors are OSErrors, uploads wrap theirs in a RuntimeError,
# and refused metadata or objects come as a ValueError
HUB_EXCEPTIONS = (OSError, httpx2.HTTPError, RuntimeError, ValueError)


class HubError(OSError):
    """The Hub refused, or could not be reached; the message says what to do."""


class CommitOutcomeUnknownError(HubError):
    """A pull request may or may not have been opened, because the Hub's answer was lost."""


def root_cause(error: BaseException) -> BaseException:
    """Find the HTTP or connection error behind an error; the error itself if there is none."""
    for candidate in _chain(error):
        if isinstance(candidate, HfHubHTTPError | httpx2.TransportError):
            return candidate
    return error


def is_transient(error: BaseException) -> bool:
    """Whether trying again can help by itself: connections dropped, 429, 5xx, or somebody else's commit between."""
    cause = root_cause(error)
    if isinstance(cause, httpx2.TransportError):
        return True
    status = _status(cause)
    return status == CHANGED_MEANWHILE or (status in TRANSIENT_STATUS and not _is_full(cause))


def explain(error: BaseException, repo_id: str, writing: bool = False) -> str:
    """Say in one line what went wrong, and what to do about it.

    Args:
        error: What huggingface_hub raised.
        repo_id: The repository in question.
        writing: Whether the repository was to be changed.

    Returns:
        A sentence or two, with the Hub's own words where it gave any.
    """
    cause = root_cause(error)
    words = _words(cause)
    if isinstance(cause, OfflineModeIsEnabled):
        return "offline mode is on (HF_HUB_OFFLINE): switch it off to reach the Hub"
    if isinstance(cause, httpx2.TransportError):
        return f"the Hub could not be reached, or the connection was lost ({type(cause).__name__}: {cause})"
    if isinstance(cause, LocalEntryNotFoundError):
        return "it is not in the cache, and the Hub was not asked"
    status = _status(cause)
    if status is None:
        return words
    if _is_full(cause):
        return f"the storage of {repo_id.split('/')[0]} on the Hub is full: free or buy space{_quoted(words)}"
    if isinstance(cause, RevisionNotFoundError):
        return f"{repo_id} has no such revision: name a branch, a tag or a commit{_quoted(words)}"
    if isinstance(cause, EntryNotFoundError):
        return f"{repo_id} has no such file{_quoted(words)}"
    return _by_status(status, repo_id, writing) + _quoted(words)


def _by_status(status: int, repo_id: str, writing: bool) -> str:
    sayings = {
        401: (
            f"the Hub does not know who you are, or {repo_id} is private or does not exist: "
            + ("the token it was shown is not valid; log in again" if get_token() else "log in")
            + " with `hf auth login`, or set HF_TOKEN"
        ),
        403: (
            f"your token may not write to {repo_id}: take one with the role 'write', of a member of the organization"
            if writing
            else f"you may not read {repo_id}: ask for access on its page"
        ),
        404: f"there is no repository {repo_id}, or your token may not see it",
        CHANGED_MEANWHILE: f"{repo_id} kept changing while this was under way",
        429: "the Hub takes no more requests for the moment",
    }
    trouble = ", it is in trouble" if status >= 500 else ""
    return sayings.get(status, f"the Hub answers with status {status}{trouble}")


def _is_full(cause: BaseException) -> bool:
    status = _status(cause)
    return status in (402, 507) or (status in (400, 403, 413) and FULL.search(_words(cause)) is not None)


def _status(cause: BaseException) -> int | None:
    return cause.response.status_code if isinstance(cause, HfHubHTTPError) else None


def _words(cause: BaseException) -> str:
    """The Hub's own words, or the error's, in one line."""
    text = (cause.server_message if isinstance(cause, HfHubHTTPError) else str(cause)) or ""
    return " ".join(text.split())


def _quoted(words: str) -> str:
    return f" (the Hub says: {words.rstrip('.')})" if words else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
