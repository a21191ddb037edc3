"""Creates the Accelerator and its trackers."""

from __future__ import annotations

import importlib.util
import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor

from ciea_hf.training.arguments import config_as_dict
from ciea_hf.training.distributed import world_size
from ciea_hf.utils import import_optional, keep_freed_memory

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)

PROJECT = "ciea"
AUTO = "auto"  # tensorboard, if installed
NO_TRACKER = "none"
LONGEST_WAIT = timedelta(hours=12)  # for a process that prepares data or evaluates a larger share


def create_accelerator(config: TrainingConfig) -> Accelerator:
    """Create the Accelerator of a run, without writing anything.

    Raises:
        ValueError: If Accelerate does not use all processes that were started.
    """
    accelerate = import_optional("accelerate", extra="train")
    launched = launched_processes()
    on_cpu = launched > 1 and not torch.accelerator.is_available() and "ACCELERATE_USE_CPU" not in os.environ
    created: Accelerator = accelerate.Accelerator(
        cpu=on_cpu,  # otherwise each process of torchrun would train alone
        mixed_precision=config.mixed_precision,
        log_with=_trackers(config) or None,
        project_config=accelerate.utils.ProjectConfiguration(project_dir=config.output_dir),
        kwargs_handlers=[
            accelerate.DistributedDataParallelKwargs(find_unused_parameters=True),  # a batch may contain no image
            accelerate.InitProcessGroupKwargs(timeout=LONGEST_WAIT),
        ],
    )
    if created.num_processes != max(launched, world_size()):
        raise ValueError(
            f"{max(launched, world_size())} processes were started, but Accelerate uses {created.num_processes}: start "
            "one process per GPU, or set ACCELERATE_USE_CPU=true to train on CPUs"
        )
    if created.is_main_process:
        _report_processes(created)
    if created.device.type == "cpu":
        keep_freed_memory()
    return created


def launched_processes() -> int:
    """Return the number of processes that a launcher such as torchrun has started, from its environment variables."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys():
        return 1
    return int(os.environ["WORLD_SIZE"])


def _report_processes(accelerator: Accelerator) -> None:
    logger.info("training in %d process(es), on %s", accelerator.num_processes, accelerator.device)
    by_accelerate = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()  # set for several processes
    if accelerator.num_processes == 1 and by_accelerate and "RANK" not in os.environ:
        logger.warning(
            "`accelerate launch` was asked for several processes and started one, because there is no second GPU; "
            "`torchrun --nproc_per_node N` starts several on CPUs"
        )


def start_trackers(accelerator: Accelerator, config: TrainingConfig) -> None:
    """Start the trackers with those values of the run that they support."""
    values = {name: value for name, value in config_as_dict(config).items() if isinstance(value, int | float | str)}
    accelerator.init_trackers(PROJECT, config=values)


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether the engine shards the weights (FSDP, DeepSpeed)."""
    return accelerator.distributed_type in ("FSDP", "DEEPSPEED")


def full_tensor(parameter: Tensor) -> Tensor:
    """Gather a parameter, which an engine may have sharded; every process must call this."""
    if not isinstance(parameter, DTensor):
        return parameter.detach()
    gathered: Tensor = parameter.full_tensor().detach()
    return gathered


def _trackers(config: TrainingConfig) -> list[str]:
    """Return the names of the trackers, after checking that Accelerate supports them and they are installed."""
    known = [name for name in map(str, import_optional("accelerate", extra="train").utils.LoggerType) if name != "all"]
    names = [name for name in config.trackers if name not in (AUTO, NO_TRACKER)]
    for name in names:
        if name not in known:
            raise ValueError(f"`trackers` must be among {', '.join([AUTO, NO_TRACKER, *known])}; got {name!r}")
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"`trackers`: {name} is not installed: pip install {name}")
    if AUTO in config.trackers and importlib.util.find_spec("tensorboard") is not None:
        names.append("tensorboard")
    return names
