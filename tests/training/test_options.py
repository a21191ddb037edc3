"""Options of what is trained: learning rates, frozen parts, adapters, dropout, captions, losses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf import CIEAModel
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.config import TrainingConfig
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.examples import RetrievalExamples
from ciea_hf.training.data.sampler import SampleKey
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.backbone import prepare_model
from ciea_hf.training.run.dev_evaluator import DevEvaluator
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import TEXT_FAMILIES, tiny_model, toy_image
from tests.support.toy_training import (
    best_model,
    configured,
    log_of,
    moved,
    read_log,
    reset_engine,
    training_data,
    weights_of,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


def test_new_parts_learn_at_their_own_rate(toy: Path, tmp_path: Path) -> None:
    run_stages(configured(toy, tmp_path, learning_rate=1e-9, new_learning_rate=1e-2, max_steps=1, eval_steps=1))
    found = moved(tmp_path / "in_batch" / "best", toy / "start")
    far = {name.split(".")[0] for name, distance in found.items() if distance > 1e-3}
    assert far == {"projector", "extractor"}
    assert all(distance < 1e-7 for name, distance in found.items() if name.split(".")[0] not in far)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("vision", {"text_model", "projector", "extractor", "logit_scale"}),
        ("vision,text,logit_scale", {"projector", "extractor"}),
        ("text,projector,extractor", {"vision_model", "logit_scale"}),
    ],
)
def test_frozen_parts_stay(toy: Path, tmp_path: Path, freeze: str, trained: set[str]) -> None:
    run_stages(configured(toy, tmp_path, freeze=freeze, max_steps=2))
    found = moved(tmp_path / "in_batch" / "best", toy / "start")
    token_tables = {name for name in found if name.startswith("text_model") and "text" in freeze}
    assert len(token_tables) <= 1  # of which three rows are trained, see the test of text embeddings
    assert {name.split(".")[0] for name in set(found) - token_tables} == trained


def test_lora_trains_adapters_and_leaves_a_plain_model(toy: Path, tmp_path: Path) -> None:
    config = configured(toy, tmp_path, stage="in_batch,mine,hard_negatives", lora="r=4", learning_rate=1e-2)
    run_stages(config)
    found = moved(tmp_path / "in_batch" / "best", toy / "start")
    inside = {name for name in found if name.startswith("text_model")}
    assert inside
    assert all(name.endswith((".q.weight", ".v.weight")) for name in inside)  # where T5's adapters were merged
    assert {name.split(".")[0] for name in found} == {"text_model", "projector", "extractor", "logit_scale"}
    result = json.loads((tmp_path / "in_batch" / "result.json").read_text())
    model = best_model(tmp_path, "in_batch")
    again = DevEvaluator(training_data("dev"), model, Collator(model.processor))(Embedder(model))
    assert again["mrr@10"] == pytest.approx(result["best_metric"], abs=1e-6)
    assert (tmp_path / "hard_negatives" / "best" / "model.safetensors").is_file()


def test_a_resumed_run_with_lora_goes_on(toy: Path, tmp_path: Path) -> None:
    values = {"lora": "r=4,dropout=0.1", "max_steps": 4, "save_steps": 2}
    whole = log_of(configured(toy, tmp_path / "whole", **values))
    reset_engine()
    run_stages(configured(toy, tmp_path / "part", **values))
    stage = tmp_path / "part" / "in_batch"
    (stage / "result.json").unlink()
    for path in (stage / "checkpoints" / "step-00000004").iterdir():
        path.unlink()
    reset_engine()
    assert log_of(configured(toy, tmp_path / "part", **values, resume=True)) == whole


@pytest.mark.parametrize("content", ["caption", "image"])
def test_content_of_the_documents_trains(toy: Path, tmp_path: Path, content: str) -> None:
    config = configured(
        toy, tmp_path, content=content, stage="in_batch,mine,hard_negatives", use_extractor=content == "image"
    )
    results = run_stages(config)
    names = list(read_log(tmp_path / "in_batch")[0])
    assert "complementary" not in names  # no image has a caption
    assert results["hard_negatives"]["step"] == 4
    model = best_model(tmp_path, "hard_negatives")
    assert model.config.use_extractor == (content == "image")
    from ciea_hf.training.data.negatives import load_negatives

    mined = load_negatives(tmp_path / "mine", (data := training_data()).document_kinds)
    rows = [row for kinds in mined.values() for kind in kinds.values() for row in kind]
    assert rows
    assert set(rows) <= set(DocumentView(data, content).usable_rows())


def test_the_margin_against_false_negatives_reaches_the_loss(toy: Path, tmp_path: Path) -> None:
    logs = []
    for margin in (None, 0.5):
        reset_engine()
        logs.append(log_of(configured(toy, tmp_path / str(margin), false_negative_margin=margin, max_steps=1)))
    assert logs[1][0]["contrastive"] < logs[0][0]["contrastive"] - 0.1
    assert logs[1][0]["complementary"] == logs[0][0]["complementary"]


@pytest.mark.parametrize("values", [{"complement_patches": "projected"}, {"query_reduction": "mask"}, {"lambda": 0}])
def test_variants_of_the_complementary_loss(toy: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    log = log_of(configured(toy, tmp_path / "variant", max_steps=1, eval_steps=1, **values))
    reset_engine()
    plain = log_of(configured(toy, tmp_path / "plain", max_steps=1))
    assert log[0]["contrastive"] == pytest.approx(plain[0]["contrastive"], abs=1e-5)
    if "lambda" in values:
        assert "complementary" not in log[0]
    else:
        assert log[0]["complementary"] != pytest.approx(plain[0]["complementary"], abs=1e-4)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_dropout_of_zero_makes_training_deterministic(family: str) -> None:
    model = tiny_model(family, extractor_dropout=0.3)
    before = model.config.to_dict()
    config = TrainingConfig(model="unused", dropout=0.0, extractor_dropout=0.0, freeze=("vision",))
    batch = model.processor(text=["a red cat", "the dog"], images=[toy_image(1), None])
    expected = model.eval()(**batch).embeddings
    noisy = model.train()(**batch).embeddings
    assert (noisy - expected).abs().max() > 1e-4
    prepare_model(model, config)
    torch.testing.assert_close(model.train()(**batch).embeddings, expected, atol=1e-5, rtol=1e-5)
    assert model.config.to_dict() == before  # a saved checkpoint keeps its values


def test_dropout_reaches_training(toy: Path, tmp_path: Path) -> None:
    logs = []
    for number, dropout in enumerate((0.0, 0.0, 0.4)):
        reset_engine()
        values = {"max_steps": 2, "dropout": dropout, "extractor_dropout": dropout}
        logs.append(log_of(configured(toy, tmp_path / str(number), **values)))
    assert logs[0] == logs[1] != logs[2]


def test_captions_are_dropped_from_documents() -> None:
    data = training_data()
    view = DocumentView(data)
    for probability, share in ((0.0, 0.0), (0.5, 0.5), (0.99, 0.99)):
        examples = RetrievalExamples(data, view, caption_dropout=probability)
        found = [examples[SampleKey(0, epoch, i)] for epoch in range(20) for i in range(len(examples))]
        images = [d for example in found for d in example.documents if d.has_image and view.text(d.row) is not None]
        dropped = sum(document.text is None for document in images) / len(images)
        assert dropped == pytest.approx(share, abs=0.08)
        assert all(example.captions for example in found if example.query_id == "q-dog-red")


def test_the_reverse_loss_contrasts_documents_with_queries(toy: Path, tmp_path: Path) -> None:
    log = log_of(configured(toy, tmp_path / "reverse", max_steps=1, reverse_weight=0.5))
    reset_engine()
    plain = log_of(configured(toy, tmp_path / "plain", max_steps=1))
    assert log[0]["contrastive"] == plain[0]["contrastive"]
    assert log[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.5 * log[0]["reverse"], abs=1e-5)


def test_a_frozen_language_model_keeps_its_text_embeddings(toy: Path, tmp_path: Path) -> None:
    """An index of texts stays valid while images join it; the rows of the new tokens are trained."""
    stages = {"align": {"freeze": ["vision", "text"], "contrast": "words"}}
    config = configured(
        toy, tmp_path, stage="align,in_batch", freeze="vision,text", stages=stages, weight_decay=0.2, max_length=4
    )
    run_stages(config)
    start, trained = CIEAModel.from_pretrained(toy / "start"), best_model(tmp_path, "in_batch")
    best = tmp_path / "in_batch" / "best"
    texts = ["a red cat", "the tree is next to the big house and the small car and the boat"]
    assert trained.encode(texts) == pytest.approx(start.encode(texts), abs=1e-6)
    before, after = (weights_of(folder)["text_model.shared.weight"] for folder in (toy / "start", best))
    moved_rows = (before != after).any(dim=1).nonzero().flatten().tolist()
    marks = {start.config.image_token_id, start.config.image_start_token_id, start.config.image_end_token_id}
    assert set(moved_rows) <= marks
    assert {start.config.image_start_token_id, start.config.image_end_token_id} <= set(moved_rows)
    document = {"text": "a red cat", "image": toy_image(1)}
    assert abs(trained.encode(document) - start.encode(document)).max() > 1e-3
