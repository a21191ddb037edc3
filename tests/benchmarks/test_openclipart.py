"""Tests of the Open Clip Art benchmark: labels and images of the vision tower, the row of BM25, and a complete run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from benchmarks import openclipart
from benchmarks.common import clipart_tower, runs
from benchmarks.common.clipart_tower import (
    RECIPE,
    LabelledImages,
    augmented,
    choose_labels,
    label_matrix,
    read_images,
    train_clipart_tower,
    word_auc,
)
from benchmarks.common.clipart_variants import SETTINGS
from benchmarks.common.recipe_variants import VARIANTS as RECIPE_VARIANTS
from benchmarks.common.records import Record, read_records
from benchmarks.common.variants import stage_overrides
from ciea_hf import CIEAModel
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.evaluation import evaluate, score_run
from ciea_hf.evaluation.baselines import bm25_run
from ciea_hf.evaluation.robustness import corrupt_captions
from ciea_hf.retrieval import DocumentView
from ciea_hf.training.arguments import config_from_arguments
from ciea_hf.training.run.stages import run_stages
from tests.support import sample_datasets
from tests.support.toy_training import reset_engine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def train_in_this_process(folder: Path, arguments: Sequence[str], preset: str) -> Path:
    """Train without a child process, with a batch size that the small data set can fill."""
    reset_engine()
    options = ["--preset", preset, "--output-dir", str(folder), "--resume", *arguments, "--batch-size", "1"]
    run_stages(config_from_arguments(options))
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    images = {name: sample_datasets.png(colour) for name, colour in sample_datasets.COLOURS.items()}
    monkeypatch.setattr(sample_datasets, "sample_images", lambda: images)
    return sample_datasets.webqa(tmp_path / "data")


def test_relevant_images_are_read_with_words_of_queries_and_captions(data: Path) -> None:
    images = read_images(load_retrieval_dataset(data, "test"))
    assert images.words == [
        {"which", "square", "yellow"},
        {"which", "square", "yellow", "cyan"},
    ]  # fmt: skip
    assert len(read_images(load_retrieval_dataset(data, "train")).words) == 1, "without the negative 30000001"
    assert [tuple(image[56, 56]) for image in images.pixels] == [(250, 250, 0), (0, 250, 250)]
    assert images.pixels.shape == (2, 112, 112, 3)


def test_copies_of_held_out_images_are_excluded() -> None:
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    training = LabelledImages(pixels, [{"zero"}, {"one"}, {"two"}])
    kept = training.without(LabelledImages(pixels[1:2], [set()]), LabelledImages(pixels[:0], []))
    assert kept.words == [{"zero"}, {"two"}]
    assert kept.pixels[:, 0, 0, 0].tolist() == [0, 2]


def test_labels_are_words_of_several_but_not_most_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipart_tower, "MIN_IMAGES", 2)
    words = [{"cat", "image"}, {"cat", "dog", "and", "image"}, {"and", "image"}, *({"image"},) * 17]
    assert choose_labels(words) == ["cat"]
    assert label_matrix(words[:3], ["cat", "dog"]).tolist() == [[1, 0], [1, 1], [0, 0]]


def test_augmentation_pads_with_white_and_depends_on_the_seed() -> None:
    white = torch.ones(4, 3, 112, 112)
    assert torch.allclose(augmented(white, torch.Generator().manual_seed(0)), white, atol=1e-6)
    black_centre = white.clone()
    black_centre[:, :, 40:72, 40:72] = -1
    one, two, other = (augmented(black_centre, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    areas = (one[:, 0] < 0).sum(dim=(1, 2)) / 32**2
    assert ((areas > 0.35) & (areas < 1.2)).all()  # squares of the scales
    assert (one[:, :, 0] == 1).all()


def test_word_auc_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.2], [0.0, 0.3, 0.2, 0.1], [0.0, 0.0, 0.0, 1.0]])
    monkeypatch.setattr(clipart_tower, "patch_states", lambda _tower, values: scores[: len(values), None])
    present = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    images = LabelledImages(np.zeros((3, 112, 112, 3), dtype=np.uint8), [set()] * 3)
    auc = word_auc(None, torch.nn.Identity(), images, present)  # type: ignore[arg-type]
    assert auc == pytest.approx((2 / 4 + 1) / 2)  # the third image has no label and is ignored


def test_tower_is_trained_once_per_recipe_and_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipart_tower, "MIN_IMAGES", 1)
    monkeypatch.setattr(clipart_tower, "MAX_SHARE", 1)
    splits = {split: load_retrieval_dataset(data, split) for split in ("train", "dev", "test")}
    folder, recipe = tmp_path / "tower", replace(RECIPE, steps=1, warmup_steps=0, batch_size=2)
    train_clipart_tower(folder, splits, recipe)
    record = json.loads((folder / "probe.json").read_text())
    assert record["labels"] == ["red", "square", "which"]
    assert record["images"] == 1
    assert AutoModel.from_pretrained(folder).config.model_type == "clip_vision_model"
    first = (folder / "model.safetensors").stat().st_mtime_ns
    train_clipart_tower(folder, splits, recipe)
    assert (folder / "model.safetensors").stat().st_mtime_ns == first
    train_clipart_tower(folder, splits, replace(recipe, steps=2))
    assert (folder / "model.safetensors").stat().st_mtime_ns != first


def test_complete_run_writes_the_page_and_is_not_repeated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clipart_tower, "MIN_IMAGES", 1)
    monkeypatch.setattr(clipart_tower, "MAX_SHARE", 1)
    monkeypatch.setattr(openclipart, "SETTINGS", {"miniature": SETTINGS["miniature"]})
    monkeypatch.setattr(runs, "launch_training", train_in_this_process)
    command = ["--data", str(data), "--tower-steps", "1", "--steps", "1", "--warm-up-steps", "1", "--seeds", "1",
               "--settings", "miniature", "--only", "marvel", "caption_only",
               "--output", str(tmp_path / "results"), "--work", str(tmp_path / "work")]  # fmt: skip
    assert openclipart.main(command) == 0
    caption_only, record = read_records(tmp_path / "results" / "openclipart" / "miniature")
    assert (caption_only.variant, record.variant) == ("caption_only", "marvel")
    assert set(record.overrides) == {"warm_up", "align", "in_batch", "data_args"}
    assert set(record.overrides["data_args"]) == {"train", "tower"}
    assert not {"dataset", "vision_model"} & record.overrides["in_batch"].keys()
    assert str(tmp_path) not in json.dumps(record.overrides)
    assert 0 <= record.measures["ties at mean"] <= 1
    test = load_retrieval_dataset(data, "test")
    page = (tmp_path / "results" / "openclipart.md").read_text(encoding="utf-8")
    bm25 = score_run(bm25_run(test), test).by_kind["image"]["mrr@10"]
    (row,) = [line for line in page.splitlines() if " BM25 " in line]
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["BM25", "1", f"{bm25:.3f}"]
    assert "9 documents" in page
    assert Image.open(tmp_path / "results" / "openclipart.png").width > 400
    model = CIEAModel.from_pretrained(next(tmp_path.glob("work/marvel-seed0-*")) / "in_batch" / "best")
    removed = DocumentView(test, captions=corrupt_captions(test, drop=1.0))
    train = load_retrieval_dataset(data, "train")
    expected = [
        evaluate(model, dataset, content=content).by_kind["image"]["mrr@10"]
        for dataset, content in ((train, "full"), (test, "caption"), (test, removed))
    ]
    conditions = [line for line in page.splitlines() if " MARVEL " in line][-1]
    assert [cell.strip() for cell in conditions.split("|")[2:4]] == ["MARVEL", "1"]
    values = [cell.strip() for cell in conditions.split("|")[4:8]]
    assert values == [f"{value:.3f}" for value in (record.measures["ties at mean"], *expected)]
    row = [line for line in page.splitlines() if " caption only " in line][-1]
    assert [cell.strip() for cell in row.split("|")[-3:-1]] == ["-", "-"], "it sees no image"
    capsys.readouterr()
    monkeypatch.setattr(runs, "evaluate", None)  # a second evaluation would fail
    assert openclipart.main([*command, "--report"]) == 0
    assert (tmp_path / "results" / "openclipart.md").read_text(encoding="utf-8") == page
    assert "run 1" not in capsys.readouterr().out


def test_conditions_skip_runs_without_a_model_unless_recorded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, variants = load_retrieval_dataset(data, "test"), SETTINGS["miniature"].variants
    benchmark = runs.Runs(variants, 1, 1, tmp_path / "records", tmp_path / "work", test)
    overrides = json.loads(json.dumps(benchmark.overrides(variants["marvel"])))
    metrics = {"image": {"mrr@10": 0.5}}
    record = Record("marvel", 0, 1, overrides, test.fingerprint, None, 1.0, metrics, [2])
    record.write(benchmark.folder)
    assert benchmark.repeat("captions", test, "caption") == []
    assert "skipped marvel, seed 0, captions: no model found at" in capsys.readouterr().out
    record.write(benchmark.folder / "captions")
    assert benchmark.repeat("captions", test, "caption") == [record]


@pytest.mark.parametrize("name", list(SETTINGS))
def test_options_of_all_systems_are_valid(name: str) -> None:
    setting = SETTINGS[name]
    assert {variant for titles in setting.groups.values() for variant in titles.values()} == set(setting.variants)
    for variant in setting.variants.values():
        stages = stage_overrides(variant, setting.steps)
        assert ("warm_up" in stages) == (name != "pretrained")
        if variant.name.endswith("_frozen"):
            assert all("text" in stage["freeze"] for stage in stages.values())


def test_a_run_continues_the_in_batch_training_of_another_variant(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, tuple[str, ...]]] = []

    def train(folder: Path, arguments: Sequence[str], preset: str) -> Path:
        started.append((folder.name.rsplit("-", 1)[0], tuple(arguments)))
        if arguments[arguments.index("--stage") + 1] == "mine,hard_negatives":
            raise SystemExit(0)
        return folder

    monkeypatch.setattr(runs, "launch_training", train)
    test = load_retrieval_dataset(data, "test")
    benchmark = runs.Runs(RECIPE_VARIANTS, 5, None, tmp_path / "records", tmp_path / "work", test)
    for name in ("hard_negatives", "ciea"):
        with pytest.raises((SystemExit, OSError)):
            benchmark.run(RECIPE_VARIANTS[name], 3)
    names = [name for name, _ in started]
    assert names == ["warm-up-t5-seed3", "align-t5-seed3", "ciea-seed3", "hard_negatives-seed3",
                     "warm-up-t5-seed3", "align-t5-seed3", "ciea-seed3"]  # fmt: skip
    assert started[2] == started[6], "the same training"
    arguments = started[3][1]
    assert arguments[arguments.index("--model") + 1].endswith("/in_batch/best")


def test_missing_data_raise_an_error_that_names_the_build_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        openclipart.main([])
    assert "build it with `ciea data build openclipart`" in capsys.readouterr().err
