"""The benchmark on real pictures: its tower's labels and pixels, BM25's row, and a run from end to end."""

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
    Pictures,
    augmented,
    choose_labels,
    label_matrix,
    read_pictures,
    train_clipart_tower,
    word_auc,
)
from benchmarks.common.records import Record, read_records
from ciea_hf import CIEAModel
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.evaluation import evaluate, score_run
from ciea_hf.evaluation.baselines import bm25_run
from ciea_hf.training.arguments import config_from_arguments
from ciea_hf.training.run.stages import run_stages
from tests.support import sample_datasets
from tests.support.toy_training import reset_engine

if TYPE_CHECKING:
    from pathlib import Path


def train_here(folder: Path, arguments):
    """Train in this process, with batches that the specimen can fill."""
    reset_engine()
    given = ["--preset", "demo", "--output-dir", str(folder), "--resume", *arguments, "--batch-size", "1"]
    run_stages(config_from_arguments(given))
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    sound = {name: sample_datasets.png(colour) for name, colour in sample_datasets.COLOURS.items()}
    monkeypatch.setattr(sample_datasets, "pictures", lambda: sound)
    return sample_datasets.webqa(tmp_path / "data")


def test_pictures_are_those_that_queries_ask_for_with_the_words_of_both_sides(data):
    pictures = read_pictures(load_retrieval_dataset(data, "test"))
    assert pictures.words == [
        {"which", "square", "yellow"},
        {"which", "square", "yellow", "cyan"},
    ]  # fmt: skip  (a negative of training, 30000001, is not among its pictures either)
    assert len(read_pictures(load_retrieval_dataset(data, "train")).words) == 1
    assert [tuple(picture[56, 56]) for picture in pictures.pixels] == [(250, 250, 0), (0, 250, 250)]
    assert pictures.pixels.shape == (2, 112, 112, 3)


def test_copies_of_held_out_pictures_are_left_out():
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    seen = Pictures(pixels, [{"zero"}, {"one"}, {"two"}])
    left = seen.without(Pictures(pixels[1:2], [set()]), Pictures(pixels[:0], []))
    assert left.words == [{"zero"}, {"two"}]
    assert left.pixels[:, 0, 0, 0].tolist() == [0, 2]


def test_labels_are_words_that_several_pictures_share_and_not_very_many(monkeypatch):
    monkeypatch.setattr(clipart_tower, "FEWEST", 2)
    words = [{"cat", "picture"}, {"cat", "dog", "and", "picture"}, {"and", "picture"}, *({"picture"},) * 17]
    assert choose_labels(words) == ["cat"]
    assert label_matrix(words[:3], ["cat", "dog"]).tolist() == [[1, 0], [1, 1], [0, 0]]


def test_augmented_pictures_stand_on_white_and_come_by_seed():
    white = torch.ones(4, 3, 112, 112)
    assert torch.allclose(augmented(white, torch.Generator().manual_seed(0)), white, atol=1e-6)
    black_centre = white.clone()
    black_centre[:, :, 40:72, 40:72] = -1
    one, two, other = (augmented(black_centre, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    areas = (one[:, 0] < 0).sum(dim=(1, 2)) / 32**2
    assert ((areas > 0.35) & (areas < 1.2)).all()  # the scales, squared
    assert (one[:, :, 0] == 1).all()


def test_word_auc_in_closed_form(monkeypatch):
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.2], [0.0, 0.3, 0.2, 0.1], [0.0, 0.0, 0.0, 1.0]])
    monkeypatch.setattr(clipart_tower, "patch_states", lambda _tower, values: scores[: len(values), None])
    present = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    pictures = Pictures(np.zeros((3, 112, 112, 3), dtype=np.uint8), [set()] * 3)
    auc = word_auc(None, torch.nn.Identity(), pictures, present)  # type: ignore[arg-type]
    assert auc == pytest.approx((2 / 4 + 1) / 2)  # the third has no word, and counts for nothing


def test_a_tower_is_trained_once_for_its_recipe_and_data(data, tmp_path, monkeypatch):
    monkeypatch.setattr(clipart_tower, "FEWEST", 1)
    monkeypatch.setattr(clipart_tower, "LARGEST_SHARE", 1)
    splits = {split: load_retrieval_dataset(data, split) for split in ("train", "dev", "test")}
    folder, recipe = tmp_path / "tower", replace(RECIPE, steps=1, warmup_steps=0, batch_size=2)
    train_clipart_tower(folder, splits, recipe)
    record = json.loads((folder / "probe.json").read_text())
    assert record["labels"] == ["red", "square", "which"]
    assert record["pictures"] == 1
    assert AutoModel.from_pretrained(folder).config.model_type == "clip_vision_model"
    first = (folder / "model.safetensors").stat().st_mtime_ns
    train_clipart_tower(folder, splits, recipe)
    assert (folder / "model.safetensors").stat().st_mtime_ns == first
    train_clipart_tower(folder, splits, replace(recipe, steps=2))
    assert (folder / "model.safetensors").stat().st_mtime_ns != first


def test_the_benchmark_runs_from_end_to_end_and_goes_on(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clipart_tower, "FEWEST", 1)
    monkeypatch.setattr(clipart_tower, "LARGEST_SHARE", 1)
    monkeypatch.setattr(openclipart, "SYSTEMS", {"marvel": openclipart.SYSTEMS["marvel"]})
    monkeypatch.setattr(runs, "launch_training", train_here)
    command = ["--data", str(data), "--tower-steps", "1", "--steps", "1", "--warm-up-steps", "1", "--seeds", "1",
               "--output", str(tmp_path / "results"), "--work", str(tmp_path / "work")]  # fmt: skip
    assert openclipart.main(command) == 0
    (record,) = read_records(tmp_path / "results" / "openclipart")
    assert record.variant == "marvel"
    assert set(record.settings) == {"warm_up", "in_batch", "material"}
    assert set(record.settings["material"]) == {"train", "tower"}
    assert not {"dataset", "vision_model"} & record.settings["in_batch"].keys()  # the preset's are not what was used
    assert str(tmp_path) not in json.dumps(record.settings)
    test = load_retrieval_dataset(data, "test")
    page = (tmp_path / "results" / "openclipart.md").read_text(encoding="utf-8")
    bm25 = score_run(bm25_run(test), test).by_kind["image"]["mrr@10"]
    (row,) = [line for line in page.splitlines() if " BM25 " in line]
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["BM25", "1", f"{bm25:.3f}"]
    assert "9 documents" in page
    assert Image.open(tmp_path / "results" / "openclipart.png").width > 400
    model = next(tmp_path.glob("work/marvel-seed0-*")) / "in_batch" / "best"
    expected = [
        evaluate(CIEAModel.from_pretrained(model), load_retrieval_dataset(data, split), content=documents)
        for split, documents in (("train", "full"), ("test", "full"), ("test", "caption"))
    ]
    row = page.splitlines()[-1]
    assert "What carries over" in page
    assert [cell.strip() for cell in row.split("|")[1:6]] == [
        "MARVEL", "1", *(f"{result.by_kind['image']['mrr@10']:.3f}" for result in expected)
    ]  # fmt: skip
    capsys.readouterr()
    monkeypatch.setattr(runs, "evaluate", None)  # nothing is evaluated twice
    assert openclipart.main([*command, "--report"]) == 0
    assert (tmp_path / "results" / "openclipart.md").read_text(encoding="utf-8") == page
    assert "run 1" not in capsys.readouterr().out


def test_a_condition_leaves_runs_from_elsewhere_aside(data, tmp_path, capsys):
    test = load_retrieval_dataset(data, "test")
    benchmark = runs.Runs(openclipart.SYSTEMS, 1, 1, tmp_path / "records", tmp_path / "work", test)
    told = json.loads(json.dumps(benchmark.told(openclipart.SYSTEMS["marvel"])))
    metrics = {"image": {"mrr@10": 0.5}}
    made = Record("marvel", 0, 1, told, test.fingerprint, None, 1.0, metrics, [2])
    made.write(benchmark.folder)
    assert benchmark.repeat("captions", test, "caption") == []
    assert "marvel, seed 0, captions: there is no model at" in capsys.readouterr().out
    made.write(benchmark.folder / "captions")
    assert benchmark.repeat("captions", test, "caption") == [made]


def test_without_its_data_the_benchmark_says_how_to_make_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        openclipart.main([])
    assert "`ciea data build openclipart` makes it" in capsys.readouterr().err
