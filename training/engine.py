"""The engine of a run: Accelerate, as its own configuration and the run's say, and its trackers."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch.distributed.tensor import DTensor

from ciea_hf.training.presets import config_as_dict
from ciea_hf.utils import require

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from ciea_hf.training.config import TrainingConfig

PROJECT = "ciea"
LONGEST_WAIT = timedelta(hours=12)  # of processes for one that prepares data or evaluates a larger share


def create_accelerator(config: TrainingConfig) -> Accelerator:
    """Create the engine; nothing is written yet."""
    accelerate = require("accelerate", extra="train")
    created: Accelerator = accelerate.Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=_trackers(config) or None,
        project_config=accelerate.utils.ProjectConfiguration(project_dir=config.output_dir),
        kwargs_handlers=[
            accelerate.DistributedDataParallelKwargs(find_unused_parameters=True),  # a batch may hold no image
            accelerate.InitProcessGroupKwargs(timeout=LONGEST_WAIT),
        ],
    )
    return created


def start_trackers(accelerator: Accelerator, config: TrainingConfig) -> None:
    """Begin to track the run, with those of its values that trackers take."""
    values = {name: value for name, value in config_as_dict(config).items() if isinstance(value, int | float | str)}
    accelerator.init_trackers(PROJECT, config=values)


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no process holds the whole model (FSDP, DeepSpeed)."""
    return accelerator.distributed_type in ("FSDP", "DEEPSPEED")


def whole(parameter: Tensor) -> Tensor:
    """Gather a parameter that an engine has sharded; every process has to call this."""
    if not isinstance(parameter, DTensor):
        return parameter.detach()
    gathered: Tensor = parameter.full_tensor().detach()
    return gathered


def _trackers(config: TrainingConfig) -> list[Any]:
    names = [name for name in config.trackers if name not in ("auto", "none")]
    if "auto" in config.trackers and importlib.util.find_spec("tensorboard") is not None:
        names.append("tensorboard")
    return names
