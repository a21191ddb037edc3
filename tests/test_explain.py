from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ciea_hf.explain import complement_map, embed_images, overlay_complement
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from ciea_hf import CIEAModel

CAPTIONS = ["a red cat", "the small house with a tree", "bread"]


@pytest.fixture(scope="module")
def model() -> CIEAModel:
    return tiny_model()


def images() -> list[Image.Image]:
    return [toy_image(seed) for seed in range(len(CAPTIONS))]


def test_whole_documents_are_those_of_encode_document(model: CIEAModel) -> None:
    parts = embed_images(model, images(), CAPTIONS, batch_size=2)
    documents = [{"text": text, "image": image} for text, image in zip(CAPTIONS, images(), strict=True)]
    expected = model.encode_document(documents, convert_to_tensor=True, normalize_embeddings=True)
    torch.testing.assert_close(parts.documents, expected, atol=1e-5, rtol=1e-5)


def test_the_projected_embedding_is_that_of_the_image_alone(model: CIEAModel) -> None:
    parts = embed_images(model, images(), CAPTIONS)
    expected = model.encode_document(images(), convert_to_tensor=True, normalize_embeddings=True)
    torch.testing.assert_close(parts.projected, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(parts.extracted, parts.projected, atol=1e-3)


def test_without_an_extractor_both_image_embeddings_are_equal() -> None:
    parts = embed_images(tiny_model(use_extractor=False), images(), CAPTIONS)
    assert parts.weights is None
    torch.testing.assert_close(parts.extracted, parts.projected)


def test_complement_map_is_the_weights_on_the_grid(model: CIEAModel) -> None:
    image, caption = toy_image(1), CAPTIONS[1]
    batch = model.processor(text=[caption], images=[image])
    with torch.no_grad():
        features = model.get_vision_features(batch["pixel_values"])
        patches = F.normalize(model.projector(features)[0], dim=-1)
        ids = batch["input_ids"][0]
        last = int((ids == model.config.image_token_id).nonzero().max())
        tokens = F.normalize(model.get_input_embeddings()(ids[last + 1 :]), dim=-1)
        expected = 1 - ((patches @ tokens.T + 1.00001) / 2).amax(dim=1)
    found = complement_map(model, image, caption)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, expected.reshape(2, 2).numpy(), atol=1e-5)


def test_overlay_is_bright_where_the_caption_says_least(model: CIEAModel) -> None:
    white = Image.new("RGB", (32, 32), "white")
    white.putpixel((3, 3), (0, 0, 0))  # otherwise the patches differ only in position
    overlay = np.asarray(overlay_complement(model, white, CAPTIONS[0]).convert("L"), dtype=float)
    weights = complement_map(model, white, CAPTIONS[0])
    quarter = overlay.shape[0] // 4
    rows, columns = np.unravel_index([weights.argmin(), weights.argmax()], weights.shape)
    dark, bright = (overlay[quarter * (1 + 2 * r), quarter * (1 + 2 * c)] for r, c in zip(rows, columns, strict=True))
    assert bright > 240
    assert dark < 100


def test_errors_name_what_is_wrong(model: CIEAModel) -> None:
    with pytest.raises(ValueError, match="an extractor"):
        complement_map(tiny_model(use_extractor=False), toy_image(), "a cat")
    with pytest.raises(ValueError, match="captions must be non-blank texts; got ' '"):
        complement_map(model, toy_image(), " ")
    with pytest.raises(ValueError, match=r"1 image\(s\) and 0 caption"):
        embed_images(model, [toy_image()], [])


def test_dropout_is_off_and_only_measured_weights_are_shown(model: CIEAModel) -> None:
    model.train()
    first, second = (embed_images(model, images(), CAPTIONS).documents for _ in range(2))
    assert model.training
    model.eval()
    torch.testing.assert_close(first, second)
    with pytest.raises(ValueError, match="weights; the model has `extractor_weights='uniform'`"):
        complement_map(tiny_model(extractor_weights="uniform"), toy_image(), "a cat")
    with pytest.raises(ValueError, match="got None"):
        complement_map(model, toy_image(), None)  # type: ignore[arg-type]
