"""Vision towers and language models of many kinds, and models joined from pretrained ones."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from ciea_hf import CIEAConfig, CIEAModel
from tests.support.helpers import (
    PATCHES,
    TEXT_FAMILIES,
    mixed_batch,
    mixed_inputs,
    text_config,
    tiny_model,
    tiny_tokenizer,
    vision_config,
)

if TYPE_CHECKING:
    from pathlib import Path

# number of states before the patches of an image of 32 x 32 pixels, and number of patches
PREFIX = {"clip_vision_model": 1, "siglip_vision_model": 0, "dinov2": 1, "dinov2_with_registers": 4, "vit": 1}
GRIDS = {**dict.fromkeys(PREFIX, PATCHES), "resnet": 16, "swin": 16}
families = pytest.mark.parametrize("text", TEXT_FAMILIES)


@pytest.mark.parametrize("vision", list(GRIDS))
@torch.no_grad()
def test_patch_states_of_a_tower(vision: str) -> None:
    """States before the patches are dropped, and the map of a convolutional tower is read row by row."""
    given: dict[str, Any] = {"image_seq_length": GRIDS[vision]} if vision not in PREFIX else {}
    model = tiny_model(vision=vision, **given)
    assert model.config.image_seq_length == GRIDS[vision]
    pixels = mixed_batch(model)["pixel_values"]
    states = model.vision_model(pixels).last_hidden_state
    features = model.get_vision_features(pixels)
    assert features.shape == (4, GRIDS[vision], 24)
    if vision == "resnet":
        torch.testing.assert_close(features[1, 6], states[1, :, 1, 2])  # row 1, column 2 of 4 x 4
    else:
        assert states.shape[1] == GRIDS[vision] + PREFIX.get(vision, 0)
        torch.testing.assert_close(features, states[:, PREFIX.get(vision, 0) :])
    assert model.encode(mixed_inputs()).shape == (7, 32)


@pytest.mark.parametrize("vision", list(PREFIX))
@torch.no_grad()
def test_patches_are_where_the_image_says(vision: str) -> None:
    """A change in one corner of the image changes that patch before attention mixes the patches."""
    model = tiny_model(vision=vision, vision_feature_layer=0)
    pixels = torch.zeros(4, 3, 32, 32)
    for patch in range(PATCHES):
        row, column = divmod(patch, 2)
        pixels[patch, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1.0
    changed = (model.get_vision_features(pixels) - model.get_vision_features(torch.zeros_like(pixels))).abs().sum(-1)
    assert torch.equal(changed > 1e-6, torch.eye(4, dtype=torch.bool))


def test_too_few_states_are_an_error() -> None:
    model = tiny_model(image_seq_length=9)
    with pytest.raises(
        ValueError, match=r"`image_seq_length` is 9, but the vision tower returns only 5 states for images of 32 x 32"
    ):
        model.get_vision_features(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("vision", ["resnet", "swin"])
def test_a_tower_that_does_not_state_its_patches(vision: str) -> None:
    with pytest.raises(ValueError, match=f"`image_seq_length` is required: the configuration of '{vision}'"):
        CIEAConfig(vision_config=vision_config(vision))


def save_towers(folder: Path, text: str = "t5", vision: str = "clip_vision_model", **vision_settings: Any) -> None:
    """A vision tower and a language model with its tokenizer, as other people publish them."""
    torch.manual_seed(3)
    AutoModel.from_config(vision_config(vision, **vision_settings)).save_pretrained(folder / "vision")
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    image_processor.save_pretrained(folder / "vision")
    AutoModel.from_config(text_config(text)).save_pretrained(folder / "text")
    tiny_tokenizer(text).save_pretrained(folder / "text")


def join(folder: Path, **overrides: Any) -> CIEAModel:
    return CIEAModel.from_vision_text_pretrained(folder / "vision", folder / "text", **overrides)


@families
def test_joined_towers_keep_their_weights(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("ciea_hf"), "propagate", True)
    save_towers(tmp_path, text)
    with caplog.at_level(logging.WARNING):
        model = join(tmp_path, prompts={"query": "query : "})
    (message,) = [
        record.getMessage() for record in caplog.records if "Newly initialised weights" in record.getMessage()
    ]
    assert "projector, logit_scale, extractor" in message
    assert "the token embeddings of <im_patch>, <im_start>, <im_end>" in message
    for side in ("vision", "text"):
        original = AutoModel.from_pretrained(tmp_path / side).state_dict()
        mine = getattr(model, f"{side}_model").state_dict()
        assert original.keys() == mine.keys()
        assert all(torch.equal(mine[name], tensor) for name, tensor in original.items())
    ids = (model.config.image_token_id, model.config.image_start_token_id, model.config.image_end_token_id)
    processor = model.processor
    assert ids == (processor.image_token_id, processor.image_start_token_id, processor.image_end_token_id)
    assert len(set(ids)) == 3
    assert processor.image_seq_length == model.config.image_seq_length == PATCHES
    assert not model.training
    assert model.config.prompts == {"query": "query : "}
    assert model.text_model.config is model.config.text_config
    model.save_pretrained(tmp_path / "joined")
    loaded = CIEAModel.from_pretrained(tmp_path / "joined")
    assert (loaded.encode(mixed_inputs()) == model.encode(mixed_inputs())).all()


@families
def test_a_padded_table_is_never_shrunk_and_a_short_one_grows(text: str, tmp_path: Path) -> None:
    save_towers(tmp_path, text)
    assert len(tiny_tokenizer(text)) + 3 < 64  # the table has rows to spare, as T5's has
    table: Any = join(tmp_path).get_input_embeddings()
    assert table.weight.shape[0] == 64
    tokenizer = tiny_tokenizer(text)
    tokenizer.add_tokens([f"more{number}" for number in range(64 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path / "text")
    model = join(tmp_path)
    table = model.get_input_embeddings()
    assert table.weight.shape[0] == model.config.text_config.vocab_size == 67
    assert model.config.image_end_token_id == 66
    assert model.encode(mixed_inputs()).shape == (7, 32)


@pytest.mark.parametrize("vision", list(GRIDS))
def test_patches_are_measured(vision: str, tmp_path: Path) -> None:
    # DINOv2 says 518 pixels and is given 224: what counts is what the image processor makes
    stated: dict[str, Any] = {"image_size": 64} if vision == "dinov2" else {}
    save_towers(tmp_path, vision=vision, **stated)
    model = join(tmp_path, use_extractor=False)
    assert model.extractor is None
    assert model.config.image_seq_length == model.processor.image_seq_length == GRIDS[vision]
    assert model.encode(mixed_inputs()).shape == (7, 32)


def test_the_vision_side_of_a_two_tower_model(tmp_path: Path) -> None:
    save_towers(tmp_path)
    side = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**side, "image_size": 32, "patch_size": 16},
        text_config={**side, "vocab_size": 20},
        projection_dim=8,
    )
    clip = CLIPModel(config)
    clip.half().save_pretrained(tmp_path / "vision")
    model = join(tmp_path)
    assert model.config.vision_config.model_type == "clip_vision_model"
    assert model.vision_model.dtype == torch.float32
    theirs = clip.float().vision_model.state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in model.vision_model.state_dict().items())


@pytest.mark.parametrize("vision", list(GRIDS))
def test_towers_of_different_number_types(vision: str) -> None:
    given: dict[str, Any] = {"image_seq_length": GRIDS[vision]} if vision not in PREFIX else {}
    model = tiny_model("bert", vision, **given)
    expected = torch.tensor(model.encode(mixed_inputs()))
    model.vision_model.to(torch.bfloat16)  # frozen, and given float32 pixels
    assert torch.cosine_similarity(torch.tensor(model.encode(mixed_inputs())), expected).min() > 0.99
    model.vision_model.float()
    model.text_model.to(torch.bfloat16)
    output = model(**mixed_batch(model), image_only_from="projected")
    assert output.embeddings.dtype == output.image_embeddings.dtype == torch.bfloat16
    assert torch.cosine_similarity(output.embeddings.float(), expected).min() > 0.99


LAYERS = {
    "vocab_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
}
OTHER_LANGUAGE_MODELS = {
    "distilbert": ("cls", {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "modernbert": ("cls", {**LAYERS, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 1}),
    "llama": ("last_token", {**LAYERS, "num_key_value_heads": 2}),
    "mt5": ("decoder_start", {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}),
}


@pytest.mark.parametrize("kind", list(OTHER_LANGUAGE_MODELS))
def test_other_language_models(kind: str) -> None:
    pooling, settings = OTHER_LANGUAGE_MODELS[kind]
    processor = tiny_model("t5").processor
    config = CIEAConfig(
        vision_config=vision_config(),
        text_config=AutoConfig.for_model(kind, **settings),
        image_token_id=processor.image_token_id,
        image_start_token_id=processor.image_start_token_id,
        image_end_token_id=processor.image_end_token_id,
        extractor_num_heads=4,
    )
    assert config.pooling == pooling
    model = CIEAModel(config).eval()
    model.processor = processor
    together = model.encode(mixed_inputs(), batch_size=3, convert_to_tensor=True)
    alone = torch.stack([model.encode(value, convert_to_tensor=True) for value in mixed_inputs()])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0.0)
