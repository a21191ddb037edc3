"""Tests of the benchmark of speed at a tiny size: what it compares is equal, and its command line writes both files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks import speed
from benchmarks.common import device_measures, speed_gpu, speed_jpegs
from benchmarks.common.speed_gpu import PROFILED, Case, cases, measure_gpu
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
from benchmarks.common.synchronisations import synchronisations
from ciea_hf import cli
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


def test_section_of_a_gpu_measures_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_measures, "REPETITIONS", (1, 1))
    options = ["--sections", "gpu", "--size", "tiny", "--batches", "3", "--output", str(tmp_path)]
    assert speed.main(options) == 0
    values = json.loads((tmp_path / "speed.json").read_text())["gpu"]["values"]
    assert [tuple(found[name] for name in Case._fields) for found in values["measured"]] == cases([3])
    for found in values["measured"]:
        assert "error" not in found
        assert found["seconds"] > 0
        assert found["gflop"] > 0
        assert found["synchronisations"] == sum(found["sites"].values())
    assert set(values["profiles"]) == set(PROFILED)
    assert (tmp_path / "speed.md").read_text().count("### Profile") == len(PROFILED)


def test_an_error_of_one_case_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(speed_gpu, "prepared_encoding", fail)
    monkeypatch.setattr(speed_gpu, "TASKS", ("queries_prepared", "queries"))
    monkeypatch.setattr(speed_gpu, "PADDED", ())
    *_, values = measure_gpu("tiny", [2], limit=100.0)
    first, second = values["measured"]
    assert first["error"] == "out of memory"
    assert second["seconds"] > 0
    *_, values = measure_gpu("tiny", [2], limit=0.0)
    assert [found["error"] for found in values["measured"]] == ["not measured within 0 s"] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_section_of_a_gpu_requires_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no CUDA device"):
        speed.main(["--sections", "gpu", "--output", str(tmp_path)])


def test_synchronisations_are_counted_by_site() -> None:
    values = torch.arange(4)

    def task() -> None:
        for _ in range(2):
            values.sum().item()
        values[values > 1].nonzero()

    found = synchronisations(task, values.device)
    assert sorted(found.values()) == [1, 1, 2]
    assert {site.split()[0] for site in found} == {"_local_scalar_dense", "index", "nonzero"}


def test_section_of_jpegs_measures_every_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode_here(model: Path, photos: Path, output: Path, _environment: object) -> list[float]:
        assert cli.main(["encode", str(model), str(photos), "--output", str(output)]) == 0
        return [1.0 + len(list(photos.iterdir())), 2.0]

    monkeypatch.setattr(speed_jpegs, "MEGAPIXELS", (0.02, 0.05))
    monkeypatch.setattr(speed_jpegs, "_encode", encode_here)
    options = ["--sections", "jpegs", "--size", "tiny", "--images", "3", "--rounds", "1", "--output", str(tmp_path)]
    assert speed.main(options) == 0
    values = json.loads((tmp_path / "speed.json").read_text())["jpegs"]["values"]
    assert values["systems"]["ciea"]["seconds"] == 4.0
    assert values["systems"]["ciea"]["start_seconds"] == 2.0
    assert 0.02 <= values["megapixels"] <= 0.05
    assert "| ciea " in (tmp_path / "speed.md").read_text()
