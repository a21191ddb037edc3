"""What the model computes: mixed batches, complement weights, pooling, layers, and its errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

from ciea_hf import CIEAConfig
from ciea_hf.modeling import complement_weights
from tests.support.helpers import PATCHES, TEXT_FAMILIES, mixed_batch, text_config, tiny_model, toy_image

if TYPE_CHECKING:
    from ciea_hf import CIEAModel
    from ciea_hf.modeling.configuration_ciea import Pooling

families = pytest.mark.parametrize("text", TEXT_FAMILIES)
close: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


def row_inputs(model: CIEAModel, batch: Any, row: int) -> dict[str, torch.Tensor]:
    """One row of a batch without its padding, with its image if it has one."""
    length = int(batch["attention_mask"][row].sum())
    has_image = (batch["input_ids"] == model.config.image_token_id).any(dim=1)
    inputs = {name: batch[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")}
    if has_image[row]:
        image = int(has_image[:row].sum())
        inputs["pixel_values"] = batch["pixel_values"][image : image + 1]
    return inputs


@families
@pytest.mark.parametrize("use_extractor", [True, False])
@torch.no_grad()
def test_a_mixed_batch_equals_each_row_alone(text: str, use_extractor: bool) -> None:
    model = tiny_model(text, use_extractor=use_extractor)
    batch = mixed_batch(model)
    together = model(**batch).embeddings
    alone = torch.cat([model(**row_inputs(model, batch, row)).embeddings for row in range(len(together))])
    torch.testing.assert_close(together, alone, **close)
    distances = torch.cdist(together, together) + torch.eye(len(together))
    assert distances.min() > 1e-3  # the rows differ, so the comparison is meaningful


@families
@torch.no_grad()
def test_padding_does_not_matter(text: str) -> None:
    model = tiny_model(text)
    batch = mixed_batch(model)
    padded = dict(batch)
    padded["input_ids"] = F.pad(batch["input_ids"], (0, 9), value=5)
    padded["attention_mask"] = F.pad(batch["attention_mask"], (0, 9))
    expected = model(**batch, image_only_from="extracted", output_patches=True)
    output = model(**padded, image_only_from="extracted", output_patches=True)
    for name in expected:
        torch.testing.assert_close(output[name], expected[name], **close)


def naive_weights(patches: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`1 - max_k (cos + 1.00001) / 2`, patch by patch and token by token."""
    weights = torch.ones(patches.shape[:2])
    for image in range(patches.shape[0]):
        for j, patch in enumerate(patches[image]):
            for k, token in enumerate(tokens[image]):
                if mask[image, k]:
                    cosine = float(patch @ token) / (math.sqrt(patch @ patch) * math.sqrt(token @ token))
                    weights[image, j] = min(float(weights[image, j]), 1 - (cosine + 1.00001) / 2)
    return weights


def test_complement_weights_against_a_loop_and_in_closed_form() -> None:
    torch.manual_seed(0)
    patches, tokens = torch.randn(3, 5, 8), torch.randn(3, 6, 8)
    mask = torch.rand(3, 6) > 0.4
    mask[2] = False  # no caption
    weights = complement_weights(patches, tokens, mask)
    torch.testing.assert_close(weights, naive_weights(patches, tokens, mask), **close)
    assert (weights[2] == 1).all()
    axes = torch.eye(8)[None]
    everything = torch.ones(1, 8, dtype=torch.bool)
    same, opposite = (
        complement_weights(axes, axes, everything),
        complement_weights(axes, -axes[:, :1], everything[:, :1]),
    )
    torch.testing.assert_close(same, torch.full((1, 8), -0.5e-5), **close)  # cosine 1
    torch.testing.assert_close(opposite[0, :2], torch.tensor([1.0, 0.5]), atol=1e-5, rtol=0.0)  # cosine -1 and 0


@families
@torch.no_grad()
def test_weights_count_what_is_attended_after_the_image(text: str) -> None:
    """By default the end mark, the words of the prefix, the caption and the end of sequence."""
    model = tiny_model(text)
    batch = mixed_batch(model)
    output = model(**batch, output_patches=True)
    rows = (batch["input_ids"] == model.config.image_token_id).any(dim=1).nonzero().flatten()
    ids, attended = batch["input_ids"][rows], batch["attention_mask"][rows].bool()
    last = torch.tensor([int((row == model.config.image_token_id).nonzero().max()) for row in ids])
    caption = attended & (torch.arange(ids.shape[1]) > last[:, None])
    expected = naive_weights(output.projected_patches, model.get_input_embeddings()(ids), caption)
    torch.testing.assert_close(output.complement_weights, expected, **close)
    alone = ~caption.any(dim=1)
    assert alone.tolist() == [False, True, False, True]
    assert (output.complement_weights[alone] == 1).all()
    torch.testing.assert_close(output.extracted_patches[alone], output.projected_patches[alone])
    assert (output.extracted_patches[~alone] - output.projected_patches[~alone]).abs().max() > 0.1


def test_extractor_masks_patches_below_the_floor() -> None:
    extractor: Any = tiny_model().extractor
    patches = torch.randn(1, PATCHES, 32)
    weights = torch.tensor([[0.5, 0.0, 0.7, 0.9]])
    changed = patches.clone()
    changed[0, 1] += 3.0
    before, after = extractor(patches, weights), extractor(changed, weights)
    others = [0, 2, 3]
    torch.testing.assert_close(before[:, others], after[:, others])  # patch 1 is not attended to
    weights[0, 1] = 0.5
    assert (extractor(patches, weights) - extractor(changed, weights))[:, others].abs().max() > 1e-3


@torch.no_grad()
def test_uniform_weights_leave_plain_attention() -> None:
    model = tiny_model(extractor_weights="uniform")
    batch = mixed_batch(model)
    output = model(**batch, output_patches=True)
    assert (output.complement_weights == 1).all()
    extractor: Any = model.extractor
    patches = output.projected_patches
    plain = torch.nn.MultiheadAttention(patches.shape[-1], extractor.num_heads, batch_first=True)
    inside = (extractor.q_proj, extractor.k_proj, extractor.v_proj)
    plain.in_proj_weight.copy_(torch.cat([layer.weight for layer in inside]))
    plain.in_proj_bias.copy_(torch.cat([layer.bias for layer in inside]))
    plain.out_proj.load_state_dict(extractor.out_proj.state_dict())
    hidden = extractor.layer_norm(patches + plain(patches, patches, patches, need_weights=False)[0])
    expected = hidden + extractor.fc2(F.leaky_relu(extractor.fc1(hidden), 0.01))
    torch.testing.assert_close(output.extracted_patches[[0, 2]], expected[[0, 2]], **close)  # those with a caption
    model.config.extractor_weights = "complement"
    weighted = model(**batch, output_patches=True).extracted_patches
    assert (weighted - output.extracted_patches)[[0, 2]].abs().max() > 1e-4


@families
@pytest.mark.parametrize("part", ["extracted", "projected"])
@torch.no_grad()
def test_image_only_equals_a_forward_over_the_patches_alone(text: str, part: str) -> None:
    model = tiny_model(text)
    batch = mixed_batch(model)
    output = model(**batch, image_only_from=part, output_patches=True)
    patches = output[f"{part}_patches"]
    rows = [model._run_alone(image[None], torch.ones(1, PATCHES, dtype=torch.long))[0] for image in patches]
    torch.testing.assert_close(output.image_embeddings, torch.cat(rows), **close)
    if part == "projected":  # what the image gives as an input of its own
        ids = torch.full((len(patches), PATCHES), model.config.image_token_id)
        alone = model(input_ids=ids, pixel_values=batch["pixel_values"]).embeddings
        torch.testing.assert_close(output.image_embeddings, alone, **close)
    # captioned images come first and third: there the two parts differ
    other = model(**batch, image_only_from="projected" if part == "extracted" else "extracted").image_embeddings
    assert (other - output.image_embeddings)[[0, 2]].abs().max() > 1e-4
    torch.testing.assert_close(other[[1, 3]], output.image_embeddings[[1, 3]], **close)


@families
@torch.no_grad()
def test_vision_features_replace_pixels(text: str) -> None:
    model = tiny_model(text)
    batch = mixed_batch(model)
    features = model.get_vision_features(batch["pixel_values"])
    assert features.shape == (4, PATCHES, 24)
    texts = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected, output = (
        model(**batch, output_patches=True),
        model(**texts, vision_features=features, output_patches=True),
    )
    assert torch.allclose(output.embeddings, expected.embeddings, atol=1e-6)
    assert torch.allclose(output.extracted_patches, expected.extracted_patches, atol=1e-6)
    with pytest.raises(ValueError, match="got both"):
        model(**batch, vision_features=features)


@torch.no_grad()
def test_vision_feature_layer() -> None:
    model = tiny_model()
    pixels = mixed_batch(model)["pixel_values"]
    states = model.vision_model(pixels, output_hidden_states=True)
    for layer in (-2, 0, 1):
        model.config.vision_feature_layer = layer
        torch.testing.assert_close(model.get_vision_features(pixels), states.hidden_states[layer][:, 1:])
    model.config.vision_feature_layer = -1
    torch.testing.assert_close(model.get_vision_features(pixels), states.last_hidden_state[:, 1:])


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
@families
@torch.no_grad()
def test_pooling(text: str, pooling: Pooling) -> None:
    model = tiny_model(text, pooling=pooling)
    batch = mixed_batch(model)
    lengths = batch["attention_mask"].sum(dim=1)
    assert len(lengths.unique()) > 2
    states: list[torch.Tensor] = []
    reader = model.text_model.encoder if text in ("t5", "bart") else model.text_model  # the decoder takes no part
    reader.register_forward_hook(lambda *args: states.append(args[-1].last_hidden_state))
    embeddings = model(**batch).embeddings
    for row, state in enumerate(states[0]):
        attended = state[: lengths[row]]
        expected = {"cls": attended[0], "mean": attended.mean(dim=0), "last_token": attended[-1]}[pooling]
        torch.testing.assert_close(embeddings[row], expected, **close)


def test_default_pooling_follows_the_language_model() -> None:
    poolings = {text: CIEAConfig(text_config=text_config(text)).pooling for text in TEXT_FAMILIES}
    assert poolings == {"t5": "decoder_start", "bart": "decoder_start", "bert": "cls", "gpt2": "last_token"}


@torch.no_grad()
def test_decoder_runs_one_step_from_token_zero() -> None:
    model = tiny_model("t5")
    batch = model.processor(text=["a red cat"])
    output = model.text_model(**batch, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))
    torch.testing.assert_close(model(**batch).embeddings, output.last_hidden_state[:, 0], **close)


def test_count_mismatch_names_both_counts() -> None:
    model = tiny_model()
    batch = mixed_batch(model)
    one_too_few = {**batch, "pixel_values": batch["pixel_values"][:3]}
    with pytest.raises(
        ValueError,
        match=r"3 image\(s\) of 4 patches, but the rows of `input_ids` contain \[0, 4, 4, 0, 4, 0, 4\] image token\(s",
    ):
        model(**one_too_few)
    with pytest.raises(ValueError, match=r"0 image\(s\) of 4 patches, .* contain \[0, 4, 4, 0, 4, 0, 4\]"):
        model(input_ids=batch["input_ids"])
    # as many placeholders as patches, but in the wrong rows
    ids = torch.full((2, 8), 7)
    ids[0] = model.config.image_token_id
    with pytest.raises(ValueError, match=r"contain \[8, 0\] image token\(s\)"):
        model(input_ids=ids, pixel_values=batch["pixel_values"][:2])
    with pytest.raises(ValueError, match="`image_only_from` must be 'extracted', 'projected' or None; got 'image'"):
        model(**batch, image_only_from="image")


def test_tuple_output_and_dropout() -> None:
    model = tiny_model(extractor_dropout=0.5)
    batch = model.processor(text=["a cat", "a dog"], images=[toy_image(1), toy_image(2)])
    values = model(**batch, return_dict=False)
    assert isinstance(values, tuple)
    assert torch.allclose(values[0], model(**batch).embeddings, atol=1e-6)
    model.train()
    features = model.get_vision_features(batch["pixel_values"])
    patches, weights = model.projector(features), torch.ones(2, PATCHES)
    extractor: Any = model.extractor
    assert not torch.equal(extractor(patches, weights), extractor(patches, weights))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "first"}, "`pooling` must be one of decoder_start, cls, mean, last_token; got 'first'"),
        ({"pooling": "decoder_start"}, "requires an encoder-decoder, unlike 'bert'; choose 'cls'"),
        ({"extractor_num_heads": 5}, "`extractor_num_heads` must divide the language model's width 32; got 5"),
        ({"extractor_weights": "none"}, "`extractor_weights` must be one of complement, gate, uniform; got 'none'"),
        ({"extractor_dropout": 1.0}, r"`extractor_dropout` must be in \[0, 1\); got 1\.0"),
        ({"image_seq_length": -1}, "`image_seq_length` must be positive; got -1"),
    ],
)
def test_configuration_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIEAConfig(text_config=text_config("bert"), **settings)
    with pytest.raises(TypeError, match="`vision_config` must be a PreTrainedConfig or a dict; got str"):
        CIEAConfig(vision_config="clip")  # type: ignore[arg-type]
