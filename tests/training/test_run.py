"""Whole runs of the training's driver."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from transformers import AutoModel

from ciea_hf.data import load_retrieval_dataset
from ciea_hf.evaluation import evaluate
from ciea_hf.training.config import TrainingConfig, updated
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.processes import train_in_processes
from tests.support.toy_training import (
    arguments_of,
    configured,
    read_log,
    reset_engine,
    same_weights,
    save_training_data,
    weights_of,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


def test_accelerate_launch_leaves_a_complete_hub_folder(toy: Path, tmp_path: Path) -> None:
    """From backbones, by the documented command."""
    output = tmp_path / "run"
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
        "--num_cpu_threads_per_process", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "training/train.py",
        "--dataset", str(toy / "data"), "--vision-model", str(toy / "vision_model"), "--text-model",
        str(toy / "text_model"), "--output-dir", str(output), "--batch-size", "4", "--max-steps", "2",
        "--learning-rate", "1e-3", "--eval-steps", "1", "--log-steps", "1", "--trackers", "none",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=200)
    assert found.returncode == 0, found.stderr
    best = output / "in_batch" / "best"
    for name in ("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "modeling_ciea.py",
                 "modules.json", "sentence_bert_config.json", "README.md", "run.json"):  # fmt: skip
        assert (best / name).is_file(), name
    card = (best / "README.md").read_text()
    assert "mrr" in card.lower()
    assert str(tmp_path) not in card
    config = yaml.safe_load((output / "in_batch" / "training_config.yaml").read_text())
    assert (config["batch_size"], config["learning_rate"], config["stage"]) == (4, 1e-3, "in_batch")
    record = json.loads((output / "in_batch" / "run.json").read_text())
    assert record["versions"]["accelerate"]
    assert record["data"].keys() == {"train", "dev"}
    result = json.loads((output / "in_batch" / "result.json").read_text())
    assert (result["step"], len(result["history"])) == (2, 2)
    assert [line["step"] for line in read_log(output / "in_batch")] == [1, 2]
    assert AutoModel.from_pretrained(best).encode(["a red cat"]).shape == (1, 32)
    assert "mrr@10" in found.stdout + found.stderr  # the dev metric is shown


@pytest.fixture(scope="module")
def plain(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage folder of an ordinary run."""
    reset_engine()
    output = tmp_path_factory.mktemp("plain")
    run_stages(configured(toy, output))
    return output / "in_batch"


def test_a_run_is_a_function_of_its_seed(toy: Path, plain: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        reset_engine()
        run_stages(configured(toy, tmp_path / str(seed), seed=seed))
    repeated, other = tmp_path / "0" / "in_batch", tmp_path / "1" / "in_batch"
    assert (repeated / "losses.jsonl").read_bytes() == (plain / "losses.jsonl").read_bytes()
    assert same_weights(repeated / "best", plain / "best")
    assert (other / "losses.jsonl").read_bytes() != (plain / "losses.jsonl").read_bytes()


def test_the_log_names_each_loss(plain: Path) -> None:
    record = read_log(plain)[0]
    assert record.keys() == {
        "step", "contrastive", "complementary", "loss", "logit_scale", "grad_norm", "learning_rate",
    }  # fmt: skip
    assert record["loss"] == pytest.approx(record["contrastive"] + 0.5 * record["complementary"])
    assert record["logit_scale"] == pytest.approx(14.28, abs=0.1)


def test_the_dev_metric_is_that_of_the_evaluation(toy: Path, plain: Path) -> None:
    result = json.loads((plain / "result.json").read_text())
    model = AutoModel.from_pretrained(plain / "best")
    metrics = evaluate(model, load_retrieval_dataset(str(toy / "data"), "dev")).metrics
    assert 0.0 < metrics["mrr@10"] < 1.0
    assert result["best_metric"] == result["metrics"]["mrr@10"] == pytest.approx(metrics["mrr@10"], abs=1e-6)
    for name in ("ndcg@10", "recall@1", "recall@10"):
        assert result["metrics"][name] == pytest.approx(metrics[name], abs=1e-6)


@pytest.mark.parametrize("values", [{"workers": 2}, {"cache_vision_features": "auto"}, {"gradient_cache_chunk": 3}])
def test_what_changes_speed_alone(toy: Path, plain: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    run_stages(configured(toy, tmp_path / "run", **values))
    expected, found = read_log(plain), read_log(tmp_path / "run" / "in_batch")
    tolerance = 1e-2 if "cache_vision_features" in values else 1e-5  # fp16
    for one, other in zip(expected, found, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=tolerance)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=10 * tolerance)


def test_two_processes_train_what_one_trains(toy: Path, plain: Path, tmp_path: Path) -> None:
    """The driver in two processes, mining included: losses, weights, dev metrics and mined negatives."""
    (tmp_path / "two").mkdir()
    config = configured(toy, tmp_path / "two" / "run", stage="in_batch,mine", mine_images=3, mine_texts=2)
    train_in_processes(2, tmp_path / "two", arguments_of(config, toy))
    two = tmp_path / "two" / "run" / "in_batch"
    for one, other in zip(read_log(plain), read_log(two), strict=True):
        assert other == pytest.approx(one, abs=1e-5, rel=1e-5)
    left, right = weights_of(plain / "best"), weights_of(two / "best")
    assert max((left[name] - right[name]).abs().max() for name in left) < 1e-5
    history = [json.loads((folder / "result.json").read_text())["history"] for folder in (plain, two)]
    assert [entry["mrr@10"] for entry in history[0]] == pytest.approx([entry["mrr@10"] for entry in history[1]])
    alone = configured(toy, tmp_path / "one", stage="mine", mine_images=3, mine_texts=2, model=str(two / "best"))
    report = run_stages(alone)["mine"]["report"]
    assert json.loads((two.parent / "mine" / "result.json").read_text())["report"] == report
    files = [folder / "mine" / "negatives.parquet" for folder in (tmp_path / "one", two.parent)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture(scope="module")
def stages(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingConfig]:
    """All four stages, from backbones."""
    reset_engine()
    output = tmp_path_factory.mktemp("stages")
    values = {name: str(toy / name) for name in ("vision_model", "text_model")}
    config = configured(toy, output, stage="all", model=None, max_steps=2, **values)
    run_stages(config)
    return output, config


def test_all_stages_run_in_order(stages: tuple[Path, TrainingConfig]) -> None:
    output, _ = stages
    results = {
        name: json.loads((output / name / "result.json").read_text())
        for name in ("align", "in_batch", "mine", "hard_negatives")
    }
    assert list(read_log(output / "align")[0])[:2] == ["step", "alignment"]
    assert list(read_log(output / "hard_negatives")[0])[:3] == ["step", "contrastive", "complementary"]
    for name in ("align", "in_batch", "hard_negatives"):
        assert results[name]["best_metric"] > 0
        assert (output / name / "best" / "model.safetensors").is_file()
    assert results["mine"]["report"]["kept"] > 0
    started = weights_of(output / "align" / "best")
    for other in ("in_batch", "hard_negatives"):
        trained = weights_of(output / other / "best")
        moved = {name.split(".")[0] for name in started if not torch.equal(started[name], trained[name])}
        assert moved == {"projector", "extractor", "text_model", "logit_scale"}  # the tower is frozen


def test_alignment_trains_the_token_table_alone_of_the_language_model(
    toy: Path, stages: tuple[Path, TrainingConfig]
) -> None:
    from ciea_hf.training.run.backbone import load_model

    _, config = stages
    start = load_model(config, None, toy).state_dict()
    trained = weights_of(stages[0] / "align" / "best")
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, start[name])}
    assert {name for name in moved if name.startswith("text_model")} == {"text_model.shared.weight"}
    assert {"projector.weight", "logit_scale"} <= moved


def test_finished_stages_are_left_alone_and_a_run_can_start_anywhere(
    toy: Path, stages: tuple[Path, TrainingConfig], caplog: pytest.LogCaptureFixture
) -> None:
    output, config = stages
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    (output / "hard_negatives" / "result.json").unlink()  # as if it had been killed
    with caplog.at_level(logging.INFO, "ciea_hf"):
        results = run_stages(updated(config, {"resume": True}))
    assert list(results) == ["align", "in_batch", "mine", "hard_negatives"]
    for stage in ("align", "in_batch", "mine"):
        assert f"stage {stage} is already finished" in caplog.text
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.relative_to(output).parts[0] for path in changed} == {"hard_negatives"}
    reset_engine()
    with pytest.raises(
        ValueError, match="align already contains a run: continue it with --resume, set another --output-dir"
    ):
        run_stages(config)


def test_a_run_on_other_data_is_not_resumed(toy: Path, plain: Path, tmp_path: Path) -> None:
    save_training_data(tmp_path / "data", texts=7)
    config = configured(toy, plain.parent, resume=True, dataset=str(tmp_path / "data"))
    with pytest.raises(ValueError, match="was trained on another train split"):
        run_stages(config)


def test_resuming_with_other_values_is_said(
    toy: Path, plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(plain, tmp_path / plain.name)
    (tmp_path / plain.name / "result.json").unlink()
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        run_stages(configured(toy, tmp_path, resume=True, learning_rate=0.5, save_steps=1))
    assert "resuming with a changed option: learning_rate is 0.5, was 0.001" in caplog.text
    assert "save_steps" not in caplog.text


def test_hard_needs_negatives(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = arguments_of(configured(toy, tmp_path / "run", stage="hard_negatives"), tmp_path)
    assert main(arguments) == 2
    assert "run stage `mine` first, or set `negatives`" in capsys.readouterr().err
