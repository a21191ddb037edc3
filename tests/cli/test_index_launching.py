"""`ciea index` in several processes, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ciea_hf.data import save_retrieval_dataset
from ciea_hf.retrieval import load_corpus
from tests.support.processes import free_port
from tests.support.toy_retrieval import dataset_of, folder_content

if TYPE_CHECKING:
    from pathlib import Path

SHARDS = 80  # seconds of work: a process that starts late still finds some


def run(module: str, *arguments: str) -> None:
    """Run a module with one thread per process, as torchrun does: rounding depends on the number of threads."""
    found = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def encoded_by_rank(logs: Path) -> list[set[str]]:
    """Shards that each rank has encoded, by what it logged."""
    found = []
    for rank in range(2):
        (log,) = logs.glob(f"*/attempt_0/{rank}/stderr.log")
        lines = log.read_text(encoding="utf-8").splitlines()
        found.append({line.split()[2] for line in lines if "is encoded: 1 documents" in line})
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_two_processes_of_torchrun_write_the_bytes_of_one(model: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    save_retrieval_dataset({"test": dataset_of({f"d{n}": f"a red cat {n}" for n in range(SHARDS)})}, data, "# Words")
    command = ["index", model, str(data), "--shard-size", "1", "--device", "cpu"]
    run("ciea_hf.cli", *command, "--output", str(tmp_path / "one"))
    for name, output in (("two", str(tmp_path / "two")), ("remote", f"file://{tmp_path}/remote")):
        logs = tmp_path / f"logs-{name}"
        launcher = [
            "--nproc-per-node",
            "2",
            "--master-port",
            str(free_port()),
            "--redirects",
            "3",
            "--log-dir",
            str(logs),
        ]
        run("torch.distributed.run", *launcher, "-m", "ciea_hf.cli", *command, "--output", output, "--verbose")
        assert folder_content(tmp_path / name) == folder_content(tmp_path / "one")
        first, second = encoded_by_rank(logs)
        assert first
        assert second
        assert not first & second
        assert first | second == {name for name in load_corpus(output).shard_names if name}
