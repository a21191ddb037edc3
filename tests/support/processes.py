"""Processes for tests of training: forked from one that has imported everything, so that they start at once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

PRELOADED = [
    "accelerate",
    "datasets",
    "tests.support.helpers",
    "tests.support.distributed_training",
    "ciea_hf.training.train",
]
PATIENCE = 120.0


def start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a process; its output goes where the test's goes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def in_processes(world: int, folder: Path, work: Callable[[int, int, Path], None]) -> None:
    """Run a function in several processes that form a gloo group; raise what one of them raised."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    processes = [start(_in_group, work, rank, world, folder, port) for rank in range(world)]
    for process in processes:
        process.join(PATIENCE)
    for process in processes:
        process.kill()
    for path in sorted(folder.glob("error-*.txt")):
        raise RuntimeError(path.read_text())
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"exit codes {[process.exitcode for process in processes]}")


def train_in_processes(world: int, folder: Path, arguments: Sequence[str]) -> None:
    """Run the training's driver in several processes, as `accelerate launch --cpu` would."""
    (folder / "arguments.txt").write_text("\n".join(arguments), encoding="utf-8")
    in_processes(world, folder, _drive_in_group)


def drive(arguments: Sequence[str], log: Path) -> None:
    """Run the training's driver in this process and exit with its status; stderr goes to a file."""
    from ciea_hf.training.train import main

    torch.set_num_threads(1)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        status = main(arguments)
        sys.stderr.flush()
        os._exit(status)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _in_group(work: Callable[[int, int, Path], None], rank: int, world: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        work(rank, world, folder)
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise
    if dist.is_initialized():  # Accelerate's end of training has destroyed it
        dist.destroy_process_group()


def _drive_in_group(rank: int, world: int, folder: Path) -> None:
    from ciea_hf.training.train import main

    status = main((folder / "arguments.txt").read_text(encoding="utf-8").split("\n"))
    if status:
        raise RuntimeError(f"process {rank} of {world} exits with {status}")
