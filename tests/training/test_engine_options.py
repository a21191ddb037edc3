"""Options of how a run computes and what it shows: precision, compilation, recomputation, trackers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf import CIEAModel
from ciea_hf.training.config import TrainingConfig
from ciea_hf.training.loss.objective import Objective
from ciea_hf.training.run.backbone import load_model, prepare_model
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import tiny_model
from tests.support.toy_training import configured, log_of, read_log, reset_engine, weights_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


# --- precision, compilation, recomputation


def test_bf16_computes_the_model_narrow_and_the_losses_wide(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtypes: dict[str, set[torch.dtype]] = {"losses": set(), "text model": set(), "inputs of the losses": set()}
    forward, load = Objective.forward, load_model

    def watching(self: Objective, embeddings: torch.Tensor, *rest: Any) -> Any:
        losses = forward(self, embeddings, *rest)
        dtypes["inputs of the losses"].add(embeddings.dtype)
        dtypes["losses"] |= {loss.dtype for loss in losses.values()}
        return losses

    def loading(*arguments: Any) -> Any:
        model = load(*arguments)
        layer = model.text_model.encoder.block[0].layer[0].SelfAttention.q
        layer.register_forward_hook(lambda module, inputs, output: dtypes["text model"].add(output.dtype))
        return model

    monkeypatch.setattr(Objective, "forward", watching)
    monkeypatch.setattr("ciea_hf.training.run.stages.load_model", loading)
    narrow = log_of(configured(toy, tmp_path / "bf16", mixed_precision="bf16"))
    assert dtypes == {
        "losses": {torch.float32}, "inputs of the losses": {torch.float32}, "text model": {torch.bfloat16},
    }  # fmt: skip
    saved = weights_of(tmp_path / "bf16" / "in_batch" / "best")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    reset_engine()
    wide = log_of(configured(toy, tmp_path / "fp32"))
    assert narrow[0]["loss"] == pytest.approx(wide[0]["loss"], abs=0.05)
    assert narrow[0]["loss"] != wide[0]["loss"]


def test_t5_in_fp16_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for kind, precision, warned in (("t5", "fp16", True), ("t5", "bf16", False), ("bert", "fp16", False)):
        caplog.clear()
        prepare_model(tiny_model(kind), TrainingConfig(), precision)
        assert ("T5 was pretrained in bf16 and overflows in fp16" in caplog.text) == warned


def test_compilation_is_an_option(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that needs no compiler; the numbers and the names of the weights stay."""
    compiled: list[type] = []
    original = torch.nn.Module.compile

    def without_compiler(self: torch.nn.Module, **kwargs: Any) -> None:
        compiled.append(type(self))
        original(self, backend="eager", **kwargs)

    monkeypatch.setattr(torch.nn.Module, "compile", without_compiler)
    with_it = log_of(configured(toy, tmp_path / "compiled", compile=True, max_steps=2))
    reset_engine()
    without = log_of(configured(toy, tmp_path / "plain", max_steps=2))
    assert [kind.__name__ for kind in compiled] == ["T5Model"]
    for one, other in zip(with_it, without, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    names = [set(weights_of(tmp_path / name / "in_batch" / "best")) for name in ("compiled", "plain")]
    assert names[0] == names[1]


def test_a_frozen_tower_sees_each_image_once_a_step(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents and image parts share the pass, and so do documents that several queries name."""
    seen: list[int] = []
    documents: list[int] = []
    features, forward = CIEAModel.get_vision_features, Objective.forward

    def counting(self: CIEAModel, pixel_values: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixel_values))
        return features(self, pixel_values)

    def comparing(self: Objective, *arguments: Any) -> Any:
        rows = arguments[3].images.tolist()
        assert sum(seen) == len(rows) == len(set(rows))
        documents.extend(rows)
        seen.clear()
        return forward(self, *arguments)

    monkeypatch.setattr(CIEAModel, "get_vision_features", counting)
    monkeypatch.setattr(Objective, "forward", comparing)
    run_stages(configured(toy, tmp_path, dev_split=None, batch_size=12))
    assert len(documents) > 20


def test_gradient_checkpointing_changes_no_number(toy: Path, tmp_path: Path) -> None:
    logs = []
    for name in (True, False):
        reset_engine()
        logs.append(log_of(configured(toy, tmp_path / str(name), gradient_checkpointing=name, max_steps=2)))
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


# --- what is shown


def test_tensorboard_gets_each_value_by_stage(toy: Path, tmp_path: Path) -> None:
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    run_stages(configured(toy, tmp_path, trackers="auto"))
    (events,) = (tmp_path / "ciea").glob("events*")
    found = accumulator.EventAccumulator(str(events))
    found.Reload()
    names = set(found.Tags()["scalars"])
    values = ("loss", "contrastive", "complementary", "logit_scale", "grad_norm", "samples_per_second", "memory_gb")
    assert {f"in_batch/{name}" for name in (*values, "learning_rate", "dev/mrr@10", "dev/recall@10")} <= names
    logged = [event.value for event in found.Scalars("in_batch/loss")]
    assert logged == pytest.approx([line["loss"] for line in read_log(tmp_path / "in_batch")])
    assert 0.05 < found.Scalars("in_batch/memory_gb")[0].value < 50
    assert found.Scalars("in_batch/samples_per_second")[0].value > 0


def test_a_tracker_that_is_asked_for_must_be_there(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="`trackers`: swanlab is not installed: pip install swanlab"):
        run_stages(configured(toy, tmp_path / "run", trackers="swanlab"))
    with pytest.raises(ValueError, match=r"`trackers` must be among auto, none, .*wandb.*; got 'wand'"):
        run_stages(configured(toy, tmp_path / "run", trackers="wand"))
    assert not (tmp_path / "run").exists()
