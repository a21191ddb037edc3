"""Publishing of a stage's best model; training continues if the Hub is unreachable."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)


def publish(folder: Path, config: TrainingConfig) -> bool:
    """Push a model to the configured repository; called by the main process only.

    Errors are logged together with the command that pushes the model later; they do not stop training.

    Args:
        folder: Folder of the model.
        config: Configuration of the stage.

    Returns:
        Whether the model was published.
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
        logger.warning("%s -- training continues; to push later: %s", error, command)
        return False
    logger.info("published: %s", result.url)
    return True
