"""Training with sharded weights (FSDP2). Accelerate offers it only on GPUs; here it is made to see some."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.processes import in_processes
from tests.support.toy_training import arguments_of, configured, read_log, weights_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "T5Block,CLIPEncoderLayer",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def _train_sharded(rank: int, world: int, folder: Path) -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ |= FSDP
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    assert main((folder / "arguments.txt").read_text().split("\n")) == 0


def run_sharded(folder: Path, arguments: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "arguments.txt").write_text("\n".join(arguments))
    in_processes(2, folder, _train_sharded)


@pytest.mark.parametrize("chunk", [None, 2])
def test_sharded_training_equals_one_process_and_resumes(toy: Path, tmp_path: Path, chunk: int | None) -> None:
    """Processes differ in their number of forward passes, which sharding forbids: fillers make up for it."""
    run_stages(configured(toy, tmp_path / "one"))
    one, two = tmp_path / "one" / "in_batch", tmp_path / "two" / "in_batch"
    config = configured(toy, tmp_path / "two", gradient_cache_chunk=chunk)
    run_sharded(tmp_path / "first", arguments_of(config, toy))
    expected = read_log(one)
    for left, right in zip(read_log(two), expected, strict=True):
        assert left == pytest.approx(right, abs=1e-4, rel=1e-4)
    left_weights, right_weights = weights_of(two / "best"), weights_of(one / "best")
    assert left_weights.keys() == right_weights.keys()
    for name, tensor in right_weights.items():
        assert left_weights[name].shape == tensor.shape
        # AdamW magnifies the rounding of gradients near 0
        assert (left_weights[name] - tensor).abs().max() < 3e-5
    if chunk is None:
        (two / "result.json").unlink()
        (two / "checkpoints" / "step-00000004" / "progress.json").unlink()
        run_sharded(tmp_path / "second", [*arguments_of(config, toy), "--resume"])
        for left, right in zip(read_log(two), expected, strict=True):
            assert left == pytest.approx(right, abs=1e-4, rel=1e-4)
