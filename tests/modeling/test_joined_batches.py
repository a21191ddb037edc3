"""Several batches embedded at once: the same embeddings and gradients as one by one, and as transformers' own T5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from ciea_hf.modeling.fusion_ciea import ModelBatch
from ciea_hf.modeling.t5_ciea import supports
from tests.support.helpers import TEXT_FAMILIES, tiny_model, toy_image
from tests.support.toy_training import named_gradients

if TYPE_CHECKING:
    from ciea_hf import CIEAModel

CLOSE: Any = {"atol": 1e-5, "rtol": 1e-5}
LONG = "where is the big blue boat next to the green tower and what is under it"


def some_batches(model: CIEAModel, image_only_from: Any = None) -> list[ModelBatch]:
    """Texts, captioned images and an image alone, of several lengths, padded within their batches."""
    given: list[dict[str, Any]] = [
        {"text": ["a red cat", LONG]},
        {"text": ["the small house", "a photo of the dog"], "images": [toy_image(1), toy_image(2)]},
        {"images": [toy_image(3)]},
        {"text": ["bread"]},
    ]
    batches = []
    for arguments in given:
        inputs = model.processor(**arguments)
        pixels = inputs.get("pixel_values")
        features = None if pixels is None else model.get_vision_features(pixels).detach()
        batches.append(ModelBatch(inputs["input_ids"], inputs["attention_mask"], features, image_only_from))
    return batches


def forward_of(model: CIEAModel, batch: ModelBatch, **options: Any) -> Any:
    """One batch by itself."""
    return model(batch.input_ids, batch.attention_mask, vision_features=batch.vision_features, **options)


def total(outputs: Any) -> torch.Tensor:
    """A scalar that depends on every embedding."""
    found = [output.embeddings for output in outputs]
    found += [output.image_embeddings for output in outputs if output.image_embeddings is not None]
    joined = torch.cat(found)
    return (joined * torch.linspace(-1, 1, joined.numel()).view_as(joined)).sum()


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@torch.no_grad()
def test_batches_embed_as_each_of_them(family: str) -> None:
    model = tiny_model(family)
    batches = some_batches(model, "projected")
    for batch, output in zip(batches, model.embed_batches(batches), strict=True):
        alone = forward_of(model, batch, image_only_from="projected")
        torch.testing.assert_close(output.embeddings, alone.embeddings, **CLOSE)
        assert (output.image_embeddings is None) == (batch.vision_features is None)
        if output.image_embeddings is not None:
            torch.testing.assert_close(output.image_embeddings, alone.image_embeddings, **CLOSE)


@pytest.mark.parametrize("pooling", ["decoder_start", "mean"])
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapted"])
def test_joined_t5_equals_transformers_with_gradients(
    pooling: Any, adapted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("t5", pooling=pooling)
    if adapted:  # keys are more than a matrix product, as with adapters: they are computed by the layer itself
        cross = model.text_model.decoder.block[0].layer[1].EncDecAttention
        cross.k = type("Adapted", (nn.Linear,), {})(cross.k.in_features, cross.k.out_features, bias=False)
    batches = some_batches(model, "extracted")
    total(model.embed_batches(batches)).backward()
    joined = named_gradients(model)
    model.zero_grad()
    monkeypatch.setattr("ciea_hf.modeling.modeling_ciea.supports", lambda _: False)
    monkeypatch.setattr("ciea_hf.modeling.language_model_ciea.supports", lambda _: False)
    total([forward_of(model, batch, image_only_from="extracted") for batch in batches]).backward()
    alone = named_gradients(model)
    assert joined.keys() == alone.keys()  # those of 0, too: an optimiser decays their weights
    for name, gradient in joined.items():
        scale = alone[name].abs().max().clamp(min=1.0)
        torch.testing.assert_close(gradient / scale, alone[name] / scale, **CLOSE, msg=name)


def test_dropout_of_the_joined_t5_changes_every_embedding() -> None:
    model = tiny_model("t5").train()
    batches = some_batches(model)
    first, second = (torch.cat([o.embeddings for o in model.embed_batches(batches)]) for _ in range(2))
    assert ((first - second).abs().amax(dim=1) > 1e-4).all()


def test_dropout_of_the_decoder_keeps_the_expected_values() -> None:
    model = tiny_model("t5")
    attention = model.text_model.decoder.block[0].layer[0].SelfAttention.train()
    attention.dropout = 0.5
    from ciea_hf.modeling.t5_ciea import _attend_to_itself

    torch.manual_seed(0)
    rows = torch.randn(1, 32).expand(20_000, -1)
    with torch.no_grad():
        dropped = _attend_to_itself(attention, rows)
        expected = _attend_to_itself(attention.eval(), rows[:1])
    torch.testing.assert_close(dropped.mean(dim=0, keepdim=True), expected, atol=0.02, rtol=0.05)


def hooked(model: CIEAModel) -> None:
    model.text_model.encoder.block[1].register_forward_hook(lambda *_: None)


def replaced(model: CIEAModel) -> None:
    model.text_model.encoder.block[1].forward = lambda *_: None


def compiled(model: CIEAModel) -> None:
    model.text_model.compile()


def eager(model: CIEAModel) -> None:
    model.set_attn_implementation("eager")


def halved(model: CIEAModel) -> None:
    model.half()


@pytest.mark.parametrize("change", [hooked, replaced, compiled, eager, halved])
def test_a_language_model_that_does_more_is_called_as_it_is(change: Any) -> None:
    model = tiny_model("t5")
    assert supports(model.text_model)
    change(model)
    assert not supports(model.text_model)


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart"])
def test_other_families_are_called_as_they_are(family: str) -> None:
    assert not supports(tiny_model(family).text_model)


@torch.no_grad()
def test_hidden_states_are_those_of_transformers() -> None:
    model = tiny_model("t5")
    inputs = model.processor(text=["a red cat", LONG])
    output = model(**inputs, output_hidden_states=True)
    assert len(output.hidden_states) == 3
    torch.testing.assert_close(output.embeddings, model(**inputs).embeddings, **CLOSE)
