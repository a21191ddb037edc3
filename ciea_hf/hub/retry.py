"""Trying again where that can help."""

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
FIRST_WAIT = 1.0  # seconds; doubles with each attempt


def with_patience(action: Callable[[], T], repo_id: str, failed: str, advice: str = "", writing: bool = False) -> T:
    """Do something on the Hub, again and again as long as the fault may pass.

    Args:
        action: What to do; safe to do again.
        repo_id: The repository in question, for messages.
        failed: What to say after a failure, such as ``"was not pushed"``.
        advice: What to add to it.
        writing: Whether the action changes the repository.

    Returns:
        What the action returns.

    Raises:
        HubError: If the fault lasts, or is not of the kind that passes.
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
        logger.warning("%s; trying again in %.0f s (%d of %d)", reason, wait, attempt, ATTEMPTS)
        time.sleep(wait)
        attempt += 1
