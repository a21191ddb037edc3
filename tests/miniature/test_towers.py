"""The two miniature towers: the vision tower of the package, and the text tower built on demand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from ciea_hf.data.builders.openmoji.build import build_benchmark, plan_benchmark, vocabulary
from ciea_hf.data.builders.openmoji.scenes import SCENE_SIZE
from ciea_hf.miniature.text import FAMILIES, build_text_tower, build_tokenizer, training_texts
from ciea_hf.miniature.vision import (
    WEIGHT_FILES,
    FreshScenes,
    TowerRecipe,
    load_probe,
    patch_states,
    probe_figure,
    probe_scenes,
    save_tower,
    tower_folder,
    train_tower,
)
from ciea_hf.modeling import CIEAModel

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import CLIPVisionModel

TINY = {"train": 40, "dev": 10, "test": 20}


def benchmark_texts() -> list[str]:
    return training_texts(build_benchmark(sizes=TINY)["train"]) + vocabulary()


@pytest.fixture(scope="module")
def tower() -> CLIPVisionModel:
    model: CLIPVisionModel = AutoModel.from_pretrained(tower_folder()).eval()
    return model


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "tower"
    build_text_tower(folder, benchmark_texts(), seed=0)
    return folder


def test_the_shipped_tower_is_small_and_loads_in_full_precision(tower: CLIPVisionModel) -> None:
    assert {path.name for path in tower_folder().iterdir()} == set(WEIGHT_FILES)
    assert (tower_folder() / "model.safetensors").stat().st_size < 3_000_000
    assert tower.dtype == torch.float32
    pixel_values = probe_scenes(2, seed=1)[0][0]
    states = patch_states(tower, pixel_values)
    assert states.shape == (2, 49, 128)
    assert torch.equal(states, tower(pixel_values).last_hidden_state[:, 1:])  # the class token comes first


def test_the_probe_finds_objects_in_unseen_scenes(tower: CLIPVisionModel) -> None:
    recorded = json.loads((tower_folder() / "probe.json").read_text(encoding="utf-8"))
    assert recorded["recipe"]["seed"] == TowerRecipe.seed
    figure = probe_figure(tower, load_probe(tower_folder()), probe_scenes(64, seed=987_654))
    assert figure > 0.8
    assert abs(figure - recorded["probe_top4"]) < 0.06  # 256 objects: a standard error of 0.02 at most


def test_the_probe_separates_a_trained_tower_from_a_random_one(tower: CLIPVisionModel) -> None:
    torch.manual_seed(0)
    random = AutoModel.from_config(tower.config).eval()
    assert probe_figure(random, load_probe(tower_folder()), probe_scenes(64, seed=987_654)) < 0.2


def test_the_probe_finds_the_planned_objects_in_the_benchmark(tower: CLIPVisionModel) -> None:
    plan = plan_benchmark(sizes=TINY)["test"]
    data = build_benchmark(sizes=TINY)["test"]
    processor = AutoImageProcessor.from_pretrained(tower_folder())
    scenes = [i for i, document in enumerate(plan.documents) if document.is_scene]
    pixel_values = processor([data.corpus[i]["image"] for i in scenes], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        scores = load_probe(tower_folder())(patch_states(tower, pixel_values)).amax(dim=1)
    highest = scores.topk(4).indices.tolist()
    found = [set(row) & set(plan.documents[i].objects) for i, row in zip(scenes, highest, strict=True)]
    assert sum(map(len, found)) / (4 * len(scenes)) > 0.8


def test_the_image_processor_reproduces_the_pixels_of_training() -> None:
    pixel_values, present = probe_scenes(2, seed=5)[0]
    images = ((pixel_values * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    processor = AutoImageProcessor.from_pretrained(tower_folder())
    again = processor(list(images), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(again, pixel_values, atol=1e-5, rtol=0)
    assert again.shape[-2:] == (SCENE_SIZE, SCENE_SIZE)
    assert present.sum(dim=1).tolist() == [4, 4]


def test_training_scenes_depend_on_step_and_seed_only() -> None:
    scenes = FreshScenes(2, 8, 7, (1, 5))
    first, again, second = scenes[0], FreshScenes(9, 8, 7, (1, 5))[0], scenes[1]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])
    counts = torch.cat([FreshScenes(1, 64, 7, (1, 5))[0][1].sum(dim=1)])
    assert set(counts.tolist()) == {1, 2, 3, 4, 5}


def test_training_is_deterministic_and_its_result_is_saved(tmp_path: Path) -> None:
    recipe = TowerRecipe(steps=2, batch_size=2, warmup_steps=1, seed=3)
    (one, head), (two, _) = train_tower(recipe), train_tower(recipe)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    save_tower(one, head, tmp_path / "tower", {"probe_top4": 0.0})
    loaded = AutoModel.from_pretrained(tmp_path / "tower")
    assert loaded.dtype == torch.float32
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, one.state_dict()[name].half().float(), atol=0, rtol=0)
    assert {path.name for path in (tmp_path / "tower").iterdir()} == set(WEIGHT_FILES)
    for name in ("config.json", "preprocessor_config.json"):  # the script reproduces the shipped files
        built, shipped = (json.loads((folder / name).read_text()) for folder in (tmp_path / "tower", tower_folder()))
        assert {**built, "transformers_version": None} == {**shipped, "transformers_version": None}


def test_missing_weights_are_reported_with_the_command_that_builds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ciea_hf.miniature.vision.resources.files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m ciea_hf\.miniature\.vision"):
        tower_folder()


def test_the_tokenizer_has_the_special_ids_of_t5() -> None:
    tokenizer = build_tokenizer(["The fox, the kite", " caption:"])
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    words = tokenizer.convert_ids_to_tokens(tokenizer(" caption: the FOX saw").input_ids)
    assert words == ["caption", ":", "the", "fox", "<unk>", "</s>"]
    batch = tokenizer(["the fox", "kite"], padding=True)
    assert batch["attention_mask"] == [[1, 1, 1], [1, 1, 0]]
    assert len(build_tokenizer(["b a", "c"])) == len(build_tokenizer(["c b", "a a"])) == 6


def test_the_text_tower_has_no_unknown_words_in_the_benchmark(text_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(text_folder)
    texts = training_texts(build_benchmark(sizes=TINY)["test"])
    assert all(tokenizer.unk_token_id not in tokenizer(text).input_ids for text in texts)
    assert tokenizer.unk_token_id not in tokenizer(" caption:").input_ids


def test_the_text_tower_is_deterministic_and_keeps_the_random_state(tmp_path: Path, text_folder: Path) -> None:
    texts = benchmark_texts()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    build_text_tower(tmp_path / "again", texts, seed=0)
    build_text_tower(tmp_path / "other", texts, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (text_folder, tmp_path / "again")]
    assert weights[0] == weights[1]
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights[0]


def test_the_towers_form_a_model(text_folder: Path) -> None:
    model = CIEAModel.from_vision_text_pretrained(tower_folder(), text_folder)
    image = np.zeros((SCENE_SIZE, SCENE_SIZE, 3), dtype=np.uint8)
    batch = model.processor(text=["the fox and the kite", "which fox"], images=[image, None])
    embeddings = model(**batch).embeddings
    assert embeddings.shape == (2, 128)
    assert model.config.image_seq_length == 49


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_forms_a_model_that_separates_texts(tmp_path: Path, family: str) -> None:
    build_text_tower(tmp_path, ["the fox and the kite"], seed=0, family=family)
    model = CIEAModel.from_vision_text_pretrained(tower_folder(), tmp_path)
    assert model.config.text_config.model_type == family
    assert model.config.hidden_size == 128
    image = Image.new("RGB", (112, 112), "white")
    embeddings = model.encode(["the fox", "the kite", {"text": "the fox", "image": image}, image])
    assert np.isfinite(embeddings).all()
    assert (np.abs(embeddings[:, None] - embeddings).max(axis=-1) > 1e-4)[~np.eye(4, dtype=bool)].all()


def test_an_unknown_family_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="t5, bart, bert, gpt2"):
        build_text_tower(tmp_path, ["fox"], family="elmo")
