"""Publishing a stage's best model, without ever stopping the training for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)


def publish(folder: Path, config: TrainingConfig) -> bool:
    """Push a model to the repository that the configuration names; call it in the main process alone.

    What goes wrong on the Hub is logged together with the command that makes up for it, and the training goes on.

    Args:
        folder: The model.
        config: Of the stage.

    Returns:
        Whether the repository now holds the model.
    """
    if config.push_to_hub is None:
        return False
    from ciea_hf.hub import push

    private = config.hub_private or None
    message = f"Publish the best model of stage {config.stage}"
    try:
        result = push(folder, config.push_to_hub, private=private, commit_message=message)
    except (OSError, ValueError, ImportError) as error:
        command = f"ciea push {folder} {config.push_to_hub}{' --private' if private else ''}"
        logger.warning("%s -- the training goes on; to push later: %s", error, command)
        return False
    logger.info("published: %s", result.url)
    return True
