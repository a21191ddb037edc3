from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ciea_hf.explain import embed_images
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from PIL import Image

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


def test_the_prompt_is_that_of_encode_document() -> None:
    prompted = tiny_model(prompts={"query": "query : ", "passage": "photo : "})
    expected = prompted.encode_document(
        {"text": CAPTIONS[0], "image": toy_image()}, convert_to_tensor=True, normalize_embeddings=True
    )
    parts = embed_images(prompted, [toy_image()], CAPTIONS[:1])
    torch.testing.assert_close(parts.documents[0], expected, atol=1e-5, rtol=1e-5)


def test_errors_name_what_is_wrong(model: CIEAModel) -> None:
    with pytest.raises(ValueError, match="captions must be non-blank texts; got ' '"):
        embed_images(model, [toy_image()], [" "])
    with pytest.raises(ValueError, match="got None"):
        embed_images(model, [toy_image()], [None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"1 image\(s\) and 0 caption"):
        embed_images(model, [toy_image()], [])


def test_dropout_is_off(model: CIEAModel) -> None:
    model.train()
    first, second = (embed_images(model, images(), CAPTIONS).documents for _ in range(2))
    assert model.training
    model.eval()
    torch.testing.assert_close(first, second)
