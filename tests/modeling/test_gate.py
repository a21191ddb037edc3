"""Gates of the extractor, and the extractor for images without a caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf import CIEAModel
from ciea_hf.modeling.layers_ciea import relative_gates
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path


def test_gates_are_relative_to_the_patches_of_the_image() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    gates = relative_gates(weights)
    torch.testing.assert_close(gates[0], gates[1], atol=1e-4, rtol=1e-4)  # shifted weights
    standardised = torch.tensor([-(1.5**0.5), 0.0, 1.5**0.5])
    torch.testing.assert_close(gates[0], torch.sigmoid(2 * (standardised + 1)), atol=1e-4, rtol=1e-4)
    assert torch.isfinite(relative_gates(torch.ones(2, 1))).all()


@torch.no_grad()
def test_gates_close_patches_that_the_caption_describes() -> None:
    model = tiny_model(extractor_weights="gate")
    batch = model.processor(text=["a red cat", None], images=[toy_image(1), toy_image(2)])
    output = model(**batch, output_patches=True)
    assert output.gates is not None
    torch.testing.assert_close(output.gates[0], relative_gates(output.complement_weights[:1])[0])
    assert torch.equal(output.gates[1], torch.ones_like(output.gates[1]))  # no caption
    extractor: Any = model.extractor
    mask = extractor.mask_embedding
    closed = extractor(output.projected_patches[:1], torch.zeros(1, output.gates.shape[1]))
    everywhere = extractor(mask.expand_as(output.projected_patches[:1]), torch.ones(1, output.gates.shape[1]))
    torch.testing.assert_close(closed, everywhere)


@torch.no_grad()
def test_images_without_a_caption_pass_the_extractor_on_request() -> None:
    for weights in ("complement", "gate", "uniform"):
        plain = tiny_model(extractor_weights=weights)
        through = tiny_model(extractor_weights=weights, extract_uncaptioned=True)
        extractor: Any = through.extractor
        through.load_state_dict(plain.state_dict())
        batch = plain.processor(text=[None], images=[toy_image(1)])
        found, other = (model(**batch, output_patches=True) for model in (plain, through))
        assert torch.equal(found.extracted_patches, found.projected_patches)
        torch.testing.assert_close(other.extracted_patches, extractor(other.projected_patches, torch.ones(1, 4)))
        captioned = plain.processor(text=["a red cat"], images=[toy_image(1)])
        torch.testing.assert_close(plain(**captioned).embeddings, through(**captioned).embeddings)


def test_the_fields_travel_and_older_checkpoints_load(tmp_path: Path) -> None:
    model = tiny_model(extractor_weights="gate", extract_uncaptioned=True)
    model.save_pretrained(tmp_path / "gate")
    again = CIEAModel.from_pretrained(tmp_path / "gate")
    assert (again.config.extractor_weights, again.config.extract_uncaptioned) == ("gate", True)
    document = {"text": "a red cat", "image": toy_image(1)}
    assert again.encode(document) == pytest.approx(model.encode(document), abs=1e-6)
    old = tiny_model()
    assert "extractor.mask_embedding" not in old.state_dict()
    assert old.config.extract_uncaptioned is False


def test_gates_have_gradients() -> None:
    model = tiny_model(extractor_weights="gate").train()
    batch = model.processor(text=["a red cat", "the dog"], images=[toy_image(1), toy_image(2)])
    model(**batch).embeddings.square().sum().backward()
    assert model.extractor.mask_embedding.grad.abs().sum() > 0
    assert torch.isfinite(model.projector.weight.grad).all()
