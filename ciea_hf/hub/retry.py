"""Retries of requests to the Hub after transient errors."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from ciea_hf.hub.errors import HUB_EXCEPTIONS, CommitOutcomeUnknownError, HubError, explain, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS = 4
FIRST_WAIT = 1.0  # seconds, doubled after each attempt


def call_with_retries(action: Callable[[], T], repo_id: str, failed: str, advice: str = "", writing: bool = False) -> T:
    """Call a function that talks to the Hub, and retry it after transient errors with growing waits.

    Args:
        action: Function to call; a repeated call must be safe.
        repo_id: Repository of the requests, for messages.
        failed: Predicate of the error message, such as `"was not pushed"`.
        advice: Sentence added to the error message.
        writing: Whether the action changes the repository.

    Returns:
        The result of the action.

    Raises:
        HubError: If the last attempt fails, or the error is not transient.
    """
    attempt = 1
    while True:
        try:
            return action()
        except CommitOutcomeUnknownError:
            raise
        except HUB_EXCEPTIONS as error:
            reason = explain(error, repo_id, writing)
            if attempt == ATTEMPTS or not is_transient(error):
                tried = f" after {attempt} attempts" if attempt > 1 else ""
                raise HubError(f"{repo_id} {failed}{tried}: {reason}{'. ' if advice else ''}{advice}") from error
        wait = FIRST_WAIT * 2 ** (attempt - 1)
        logger.warning("%s; retrying in %.0f s (attempt %d of %d failed)", reason, wait, attempt, ATTEMPTS)
        time.sleep(wait)
        attempt += 1
