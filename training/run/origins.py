"""What a model derives from, decided while it is trained: later, a relative path looks like the id of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.loading import BUILT_IN
from ciea_hf.model_cards.run_files import is_repository_id, recorded_base_models

if TYPE_CHECKING:
    from ciea_hf.training.config import TrainingConfig


def run_origins(config: TrainingConfig, previous: Path | None) -> dict[str, list[str]]:
    """Return the Hub repositories that a stage's model derives from.

    Args:
        config: Configuration of the stage.
        previous: Model of the previous stage, if the stage starts from it.

    Returns:
        `base_model` and `datasets`, lists of ids on the Hub. Local folders are not named; a local CIEA model is
        replaced by the base models in its own record.
    """
    start = str(previous or config.model or "")
    if start and not start.endswith(".pt"):
        base = recorded_base_models(Path(start)) if Path(start).is_dir() else [start]
    else:
        base = [str(config.vision_model), str(config.text_model)]
        base = [name for name in base if not Path(name).exists()]
    dataset = config.dataset
    is_local = dataset in BUILT_IN or Path(dataset).exists()
    return {
        "base_model": [name for name in base if is_repository_id(name)],
        "datasets": [dataset] if not is_local and is_repository_id(dataset) else [],
    }
