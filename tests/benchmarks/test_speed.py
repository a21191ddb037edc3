"""Tests of the benchmark of speed at a tiny size: what it compares is equal, and its command line writes both files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks import speed
from benchmarks.common.speed_sample import build_model, make_sample
from benchmarks.common.speed_tasks import (
    TASKS,
    Setting,
    encoding,
    measure,
    padded_encoding,
    padded_loss,
    training_loss,
)
from ciea_hf.training.run.optim import freeze

if TYPE_CHECKING:
    from collections.abc import Sequence

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="the peak memory is reset through /proc")


def test_padded_loop_and_package_have_the_same_loss_and_gradients() -> None:
    found = []
    for make in (padded_loss, training_loss):
        model = build_model("tiny", dropout=0.0)
        freeze(model, ["vision"])
        loss = make(model.train(), make_sample(model, 6))()
        loss.backward()
        found.append((loss.detach(), model.projector.weight.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", ["images", "queries"])
def test_padded_loop_and_package_have_the_same_embeddings(task: str) -> None:
    model = build_model("tiny")
    sample = make_sample(model, 6)
    torch.testing.assert_close(
        encoding(model, sample, task, 4)(), padded_encoding(model, sample, task, 4)(), atol=1e-5, rtol=1e-5
    )


@linux
def test_page_and_record_hold_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Setting] = []

    def here(_module: str, setting: Sequence[Any], _environment: object) -> list[object]:
        measured.append(Setting(*setting))
        return [*measure(measured[-1])]

    monkeypatch.setattr(speed, "measure_in_child", here)
    threads = torch.get_num_threads()
    options = ["--size", "tiny", "--batch", "2", "--rounds", "1", "--repeats", "1", "--output", str(tmp_path)]
    assert speed.main(options) == 0
    torch.set_num_threads(threads)
    assert [(setting.task, setting.system) for setting in measured].count(("train_cached", "padded")) == 0
    record = json.loads((tmp_path / "speed.json").read_text())["released"]
    assert record["machine"]["torch"] == torch.__version__
    assert set(record["values"]) == set(TASKS)
    for systems in record["values"].values():
        assert systems["padded"]["gflop"] > systems["ciea"]["gflop"] > 0
    page = (tmp_path / "speed.md").read_text()
    assert page.count("| padded loop |") == page.count("|        ciea |") == len(TASKS)
