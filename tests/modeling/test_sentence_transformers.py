"""The saved folder as a SentenceTransformer, through its stock Transformer module."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from ciea_hf import CIEAModel
from tests.support.helpers import TEXT_FAMILIES, mixed_inputs, tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = {"query": "query : ", "document": "a photo of "}
families = pytest.mark.parametrize("text", TEXT_FAMILIES)
close: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {text: tmp_path_factory.mktemp(text) for text in TEXT_FAMILIES}
    for text, folder in folders.items():
        tiny_model(text, prompts=PROMPTS).save_pretrained(folder)
    return folders


def assert_equal_embeddings(mine: CIEAModel, theirs: SentenceTransformer) -> None:
    inputs = mixed_inputs()
    texts, captioned, images = [inputs[0], inputs[3]], [inputs[1], inputs[4]], [inputs[2], toy_image(7)]
    swapped = [{"image": toy_image(1), "text": "bread"}]
    mixed_dicts = [inputs[1], inputs[5], inputs[6]]
    for group in (inputs, texts, captioned, images, swapped, mixed_dicts):
        for name in ("encode", "encode_query", "encode_document"):
            np.testing.assert_allclose(getattr(theirs, name)(group), getattr(mine, name)(group), **close)
    for single in ("a red cat", toy_image(2), inputs[1]):
        np.testing.assert_allclose(theirs.encode_query(single), mine.encode_query(single), **close)


@families
def test_equal_to_the_models_own_encode(text: str, folders: dict[str, Path]) -> None:
    theirs = SentenceTransformer(str(folders[text]))
    mine = CIEAModel.from_pretrained(folders[text])
    assert type(theirs[0].model) is CIEAModel
    assert theirs.prompts == PROMPTS
    assert_equal_embeddings(mine, theirs)
    queries, documents = mine.encode_query(["a cat"]), mine.encode_document(mixed_inputs())
    torch.testing.assert_close(theirs.similarity(queries, documents), mine.similarity(queries, documents))
    variants: list[dict[str, Any]] = [{"normalize_embeddings": True}, {"truncate_dim": 7}, {"precision": "ubinary"}]
    for settings in (*variants, {"batch_size": 2}):
        np.testing.assert_allclose(
            theirs.encode(mixed_inputs(), **settings), mine.encode(mixed_inputs(), **settings), **close
        )
    assert abs(theirs.encode_query("a cat") - theirs.encode("a cat")).max() > 1e-3


@families
def test_saved_and_loaded_again(text: str, folders: dict[str, Path], tmp_path: Path) -> None:
    SentenceTransformer(str(folders[text])).save_pretrained(str(tmp_path))
    mine = CIEAModel.from_pretrained(folders[text])
    assert_equal_embeddings(mine, SentenceTransformer(str(tmp_path)))
    again = CIEAModel.from_pretrained(tmp_path)
    np.testing.assert_allclose(again.encode_query(mixed_inputs()), mine.encode_query(mixed_inputs()), atol=1e-5)
    assert {path.name for path in folders[text].iterdir()} <= {path.name for path in tmp_path.iterdir()}


def test_their_settings_are_saved(folders: dict[str, Path], tmp_path: Path) -> None:
    prompts = {"query": "red cat ", "document": ""}
    settings: dict[str, Any] = {
        "prompts": prompts,
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "truncate_dim": 16,
    }
    theirs = SentenceTransformer(str(folders["t5"]), **settings)
    for _ in range(2):
        theirs.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path))
    assert {name: getattr(again, name) for name in settings} == settings
    np.testing.assert_allclose(again.encode("a dog"), theirs.encode("a dog"), **close)
    mine = CIEAModel.from_pretrained(tmp_path)
    assert mine.config.prompts == prompts
    np.testing.assert_allclose(mine.encode_query("a dog")[:16], theirs.encode("a dog"), **close)
    options: dict[str, Any]
    for options in ({}, {"safe_serialization": True}):
        mine.config.prompts = {"query": f"the {len(options)} "}
        mine.save_pretrained(tmp_path, **options)  # replaces the settings saved above
        assert SentenceTransformer(str(tmp_path)).prompts["query"] == f"the {len(options)} "


def test_nothing_is_warned_of(
    folders: dict[str, Path], tmp_path: Path, transformers_log: pytest.LogCaptureFixture
) -> None:
    theirs = SentenceTransformer(str(folders["t5"]))
    theirs.encode([*mixed_inputs(), "a cat"], batch_size=2)
    theirs.save_pretrained(str(tmp_path))
    assert not [message for message in transformers_log.messages if "CIEA" in message]


def test_long_texts_are_cut_at_the_same_place(folders: dict[str, Path]) -> None:
    theirs, mine = SentenceTransformer(str(folders["t5"])), CIEAModel.from_pretrained(folders["t5"])
    long = " ".join(["the red cat is under the big tree"] * 30)
    inputs = [long, {"text": long, "image": toy_image()}]
    np.testing.assert_allclose(theirs.encode(inputs), mine.encode(inputs), **close)
    theirs.max_seq_length = 20
    assert abs(theirs.encode(inputs) - mine.encode(inputs)).max() > 1e-3


@pytest.mark.parametrize("limit", [64, 40])
def test_the_limit_of_sentence_transformers_rules(folders: dict[str, Path], tmp_path: Path, limit: int) -> None:
    """Also if it is the tokenizer's own, 64, above the processor's limit of texts."""
    mine = CIEAModel.from_pretrained(folders["t5"])
    mine.processor.max_text_length = 16
    mine.save_pretrained(tmp_path / "short")
    theirs = SentenceTransformer(str(tmp_path / "short"))
    long = " ".join(["the red cat is under the big tree"] * 30)
    inputs = [long, {"text": long, "image": toy_image()}]
    np.testing.assert_allclose(theirs.encode(inputs), mine.encode(inputs), **close)
    theirs.max_seq_length = limit
    longer = CIEAModel.from_pretrained(folders["t5"])
    longer.processor.tokenizer.model_max_length = limit
    assert abs(theirs.encode(inputs) - mine.encode(inputs)).max(axis=1).min() > 1e-3
    np.testing.assert_allclose(theirs.encode(inputs), longer.encode(inputs), **close)
    theirs.save_pretrained(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"))
    np.testing.assert_allclose(again.encode(inputs), longer.encode(inputs), **close)
    assert again.max_seq_length == limit


def test_several_processes(folders: dict[str, Path]) -> None:
    theirs = SentenceTransformer(str(folders["t5"]))
    embeddings = theirs.encode_document(mixed_inputs(), device=["cpu", "cpu"], chunk_size=4)
    mine = CIEAModel.from_pretrained(folders["t5"])
    np.testing.assert_allclose(embeddings, mine.encode_document(mixed_inputs()), **close)


def test_without_the_package(folders: dict[str, Path], tmp_path: Path) -> None:
    """Through `trust_remote_code`, in a process that cannot import `ciea_hf`; saved there and loaded again."""
    toy_image(1).save(tmp_path / "image.png")
    code = """
import sys
sys.modules["ciea_hf"] = None
import numpy
from sentence_transformers import SentenceTransformer
folder, image, out = sys.argv[1:]
inputs = ["a red cat", {"text": "the small house", "image": image}, {"text": None, "image": image}, image]
model = SentenceTransformer(folder, trust_remote_code=True)
if not type(model[0].model).__module__.startswith("transformers_modules."):
    raise SystemExit(type(model[0].model).__module__)
embeddings = model.encode_query(inputs)
model.save_pretrained(out)
again = SentenceTransformer(out, trust_remote_code=True)
numpy.testing.assert_allclose(again.encode_query(inputs), embeddings, atol=1e-5)
numpy.save(out + "/embeddings.npy", embeddings)
"""
    image, out = tmp_path / "image.png", tmp_path / "again"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, folders["t5"], image, out],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    inputs = ["a red cat", {"text": "the small house", "image": image}, image, image]
    expected = CIEAModel.from_pretrained(folders["t5"]).encode_query(inputs)
    np.testing.assert_allclose(np.load(out / "embeddings.npy"), expected, **close)
    assert (out / "modeling_ciea.py").exists()


@families
def test_one_step_of_their_trainer(text: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = SentenceTransformer(str(folders[text]))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    queries = ["a red cat", "bread", "the small house", "who is under the tree"]
    documents: list[dict[str, Any]] = [
        {"text": f"{query} on the car", "image": toy_image(n)} for n, query in enumerate(queries)
    ]
    documents[2]["image"] = None  # one of them a text
    dataset = Dataset.from_dict({"query": queries, "document": documents})
    settings = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, prompts={"query": "query : "},
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(model, settings, dataset, loss=MultipleNegativesRankingLoss(model))
    result = trainer.train()
    assert np.isfinite(result.training_loss)
    assert result.training_loss > 0
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    for part in ("projector", "extractor.q_proj", "vision_model", "text_model"):
        assert any(f".{part}" in name for name in changed), part
    assert np.isfinite(model.encode(mixed_inputs())).all()
