"""Maps of a tiny model: completeness, scores, weights and gates, grids, batches, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from ciea_hf import CIEAModel
from ciea_hf.choices import EXPLANATION_METHODS
from ciea_hf.explain import explain
from ciea_hf.explain.document import ImageDocument, patch_grid
from ciea_hf.modeling.evaluation_mode_ciea import evaluating
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from PIL import Image

CAPTIONS = ["a red cat", "the small house with a tree", "bread"]
QUERIES = ["where is the green tower", "a blue boat", "the dog"]


@pytest.fixture(scope="module")
def model() -> CIEAModel:
    return tiny_model(extractor_weights="gate", prompts={"query": "query : ", "document": "photo : "})


def images() -> list[Image.Image]:
    return [toy_image(seed) for seed in range(len(CAPTIONS))]


def wide_model(vision: str) -> CIEAModel:
    """A model for images of 32 x 64 pixels: 2 x 4 patches of a transformer, 4 x 8 positions of a ResNet."""
    square = tiny_model(vision=vision, image_seq_length=32 if vision == "resnet" else 8)
    config = square.config
    if vision == "vit":
        config.vision_config.image_size = [32, 64]
    torch.manual_seed(0)
    model = CIEAModel(config).eval()
    model.processor = square.processor
    model.processor.image_processor = ViTImageProcessorPil(size={"height": 32, "width": 64})
    return model


@pytest.mark.parametrize("text", ["t5", "bert", "gpt2"])
@pytest.mark.parametrize("query", ["a blue boat", None])
def test_gradients_sum_to_the_score_of_what_differs_between_patches(text: str, query: str | None) -> None:
    pooling = "mean" if text == "bert" else None  # the first token hardly sees the image in random weights
    model = tiny_model(text, pooling=pooling)
    found = explain(model, toy_image(), CAPTIONS[1], query, steps=64)
    assert found.map.shape == (2, 2)
    with evaluating(model), torch.no_grad():
        document = ImageDocument(model, toy_image(), CAPTIONS[1], 8)
        features = document.features(document.nothing_hidden())
        flat = document.embed(features.mean(dim=1, keepdim=True).expand_as(features))[0]
        whole = document.embed(features)[0]
        target = torch.from_numpy(model.encode_query(query) if query else model.encode_document(CAPTIONS[1]))
        target = F.normalize(target, dim=0)
        if query is None:
            target = F.normalize(whole - (whole @ target) * target, dim=0)
        expected = float((whole - flat) @ target)
    assert found.map.sum() == pytest.approx(expected, rel=0.02, abs=1e-5)
    apart = explain(model, toy_image(), CAPTIONS[1], query, steps=64, smooth=False)
    assert apart.map.sum() == pytest.approx(found.map.sum(), abs=1e-5)
    assert abs(apart.map - found.map).max() > 1e-5
    assert abs(found.map).max() > 1e-4


def test_the_score_is_that_of_the_search(model: CIEAModel, tmp_path: Path) -> None:
    toy_image(5).save(tmp_path / "query.png")
    path = tmp_path / "query.png"
    queries = ["a blue boat", toy_image(5), path, {"text": "a blue boat", "image": path}]
    document = model.encode_document({"text": CAPTIONS[0], "image": toy_image()})
    for query in queries:
        found = explain(model, toy_image(), CAPTIONS[0], query)
        expected = float(model.similarity(model.encode_query(query), document))
        assert found.score == pytest.approx(expected, abs=1e-5)
        assert found.query is query
    alone = explain(model, toy_image(), query=queries[0])
    expected = float(model.similarity(model.encode_query(queries[0]), model.encode_document(toy_image())))
    assert alone.score == pytest.approx(expected, abs=1e-5)


def test_a_text_that_names_an_image_file_is_a_text(
    model: CIEAModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    toy_image(5).save("cat.png")
    as_text = explain(model, toy_image(), "cat.png", "cat.png")
    as_image = explain(model, toy_image(), "cat.png", Path("cat.png"))
    assert as_text.score != pytest.approx(as_image.score, abs=1e-3)
    Path("cat.png").unlink()
    assert explain(model, toy_image(), "cat.png", "cat.png").score == pytest.approx(as_text.score, abs=1e-6)


def test_without_a_query_the_score_is_the_sine_of_document_and_caption(model: CIEAModel) -> None:
    found = explain(model, toy_image(), CAPTIONS[0])
    rows = model.encode_document([{"text": CAPTIONS[0], "image": toy_image()}, CAPTIONS[0]], convert_to_tensor=True)
    cosine = float(model.similarity(rows[0], rows[1]))
    assert found.score == pytest.approx((1 - cosine**2) ** 0.5, abs=1e-4)


def test_occlusion_is_the_mean_score_lost_when_windows_are_painted(model: CIEAModel) -> None:
    found = explain(model, toy_image(), CAPTIONS[0], QUERIES[0], method="occlusion")
    whole = model.processor(images=[toy_image()])["pixel_values"]
    batch = model.processor(text=["photo : " + CAPTIONS[0]], images=[toy_image()])
    lost = []
    for rows in (slice(16, 32), slice(0, 32)):  # the four windows that contain the patch of row 1 and column 0
        for columns in (slice(0, 16), slice(0, 32)):
            batch["pixel_values"] = whole.clone()
            batch["pixel_values"][0, :, rows, columns] = whole[0].mean(dim=(1, 2))[:, None, None]
            with torch.no_grad():
                painted = model(**batch).embeddings
            lost.append(found.score - float(model.similarity(model.encode_query(QUERIES[0]), painted)))
    assert found.map[1, 0] == pytest.approx(np.mean(lost), abs=1e-5)
    assert found.scale == (-abs(found.map).max(), abs(found.map).max())


def read_by_extractor(model: CIEAModel, caption: str) -> torch.Tensor:
    """Weights or gates of the patches that the extractor gets while a document is encoded: (P,)."""
    seen: list[torch.Tensor] = []
    assert model.extractor is not None
    hook = model.extractor.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1][0]))
    model.encode_document({"text": caption, "image": toy_image()})
    hook.remove()
    return seen[0]


def test_gates_are_those_that_the_extractor_reads(model: CIEAModel) -> None:
    seen = read_by_extractor(model, CAPTIONS[1])
    found = explain(model, toy_image(), CAPTIONS[1], QUERIES[0], method="gates")
    np.testing.assert_allclose(found.map.ravel(), seen.numpy(), atol=1e-6)
    assert found.scale == (0.0, 1.0)
    same = explain(model, toy_image(), CAPTIONS[1], method="gates")
    np.testing.assert_array_equal(found.map, same.map)
    assert found.score != same.score


def test_weights_are_those_that_the_extractor_reads() -> None:
    model = tiny_model()  # the paper's complement weights
    seen = read_by_extractor(model, CAPTIONS[1])
    found = explain(model, toy_image(), CAPTIONS[1], method="weights")
    np.testing.assert_allclose(found.map.ravel(), seen.numpy(), atol=1e-6)


@pytest.mark.parametrize("method", EXPLANATION_METHODS)
@pytest.mark.parametrize("query", [QUERIES, "a blue boat", None, [QUERIES[0], None, toy_image(7)]])
def test_batches_equal_singles(model: CIEAModel, method: str, query: Any) -> None:
    together = explain(model, images(), CAPTIONS, query, method, batch_size=3)
    queries = query if isinstance(query, list) else [query] * 3
    for found, image, caption, asked in zip(together, images(), CAPTIONS, queries, strict=True):
        alone = explain(model, image, caption, asked, method)
        np.testing.assert_allclose(found.map, alone.map, atol=1e-5)
        np.testing.assert_allclose(found.faithfulness, alone.faithfulness, atol=1e-5)
        assert found.score == pytest.approx(alone.score, abs=1e-5)
        assert found.marked == alone.marked


@pytest.mark.parametrize(("vision", "grid"), [("vit", (2, 4)), ("resnet", (4, 8))])
def test_grids_that_are_not_square(vision: str, grid: tuple[int, int]) -> None:
    model = wide_model(vision)
    for method in ("integrated_gradients", "occlusion", "weights"):
        found = explain(model, toy_image(), CAPTIONS[0], QUERIES[0], method)
        assert found.map.shape == grid
    assert found.image.size == (64, 32)
    with evaluating(model):
        document = ImageDocument(model, toy_image(), CAPTIONS[0], 8)
        hidden = document.nothing_hidden()
        hidden[0, grid[1] + 2] = True  # row 1, column 2
        changed = (document.hide(hidden) != document.pixels)[0].any(dim=0)
    height, width = 32 // grid[0], 64 // grid[1]
    assert changed[height : 2 * height, 2 * width : 3 * width].float().mean() > 0.95
    assert int(changed.sum()) <= height * width


def test_patches_that_form_no_grid_are_an_error() -> None:
    model = tiny_model(vision="resnet", image_seq_length=13)
    with pytest.raises(ValueError, match="the 13 patches of an image of 32 x 32 pixels do not form a grid"):
        patch_grid(model, 32, 32)


def test_models_without_an_extractor_or_in_training_mode(model: CIEAModel) -> None:
    marvel = tiny_model(use_extractor=False)
    assert explain(marvel, toy_image(), CAPTIONS[0], QUERIES[0]).map.shape == (2, 2)
    model.train()
    first, second = (explain(model, toy_image(), CAPTIONS[0], QUERIES[0]).map for _ in range(2))
    assert model.training
    model.eval()
    np.testing.assert_array_equal(first, second)
    with torch.inference_mode():
        np.testing.assert_allclose(explain(model, toy_image(), CAPTIONS[0], QUERIES[0]).map, first, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_image_is_shown_as_the_tower_sees_it(model: CIEAModel) -> None:
    processor = model.processor.image_processor
    assert isinstance(processor, CLIPImageProcessorPil)
    image = toy_image(size=(32, 32))  # neither resized nor cropped
    np.testing.assert_array_equal(np.asarray(explain(model, image, "a cat").image), np.asarray(image))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"method": "saliency"}, "`method` must be one of integrated_gradients, occlusion, weights, gates; got 'sali"),
        ({"steps": 0}, "`steps` must be at least 1; got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        ({"caption": None, "query": None}, "image 0: without a `query` the image needs a `caption`"),
        ({"caption": " "}, "image 0: without a `query` the image needs a `caption`"),
        ({"caption": ["a cat"]}, "one image takes one caption and one query; got a list"),
        ({"caption": 3}, "image 0: a caption must be a str or None; got int"),
        ({"image": [toy_image()], "caption": "a cat"}, r"1 image\(s\), captions in one text and 1 quer"),
        ({"image": [toy_image()] * 2, "caption": ["a cat"]}, r"2 image\(s\), 1 caption\(s\) and 2 quer"),
        ({"image": [toy_image()], "caption": ["a"], "query": ["b", "c"]}, r"1 image\(s\), 1 caption\(s\) and 2 quer"),
        ({"image": [], "caption": []}, "`image` must not be an empty list"),
        ({"image": "absent.png"}, "absent.png"),
        ({"query": " "}, "the text is empty"),
        ({"query": 3}, "got int"),
    ],
)
def test_bad_arguments(model: CIEAModel, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=error):
        explain(model, **{"image": toy_image(), "caption": "a cat", **arguments})


def test_methods_that_a_model_does_not_have() -> None:
    with pytest.raises(ValueError, match="`method='weights'` needs an extractor; the model has `use_extractor=False`"):
        explain(tiny_model(use_extractor=False), toy_image(), "a cat", method="weights")
    with pytest.raises(ValueError, match="the model has no weights: its `extractor_weights` is 'uniform'"):
        explain(tiny_model(extractor_weights="uniform"), toy_image(), "a cat", method="weights")
    with pytest.raises(ValueError, match="the model has no gates: its `extractor_weights` is 'complement'"):
        explain(tiny_model(), toy_image(), "a cat", method="gates")
    with pytest.raises(TypeError, match="`model` must be a CIEA model; got Linear"):
        explain(torch.nn.Linear(2, 2), toy_image(), "a cat")  # type: ignore[call-overload]
