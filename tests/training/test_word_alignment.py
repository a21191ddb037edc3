"""The word alignment: its loss by hand, its gradients, its batches, its measure, its stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.examples import AlignmentExamples
from ciea_hf.training.data.sampler import SampleKey
from ciea_hf.training.loss.losses import WordAlignmentLoss, word_scores
from ciea_hf.training.loss.word_alignment import WordAligner, WordObjective
from ciea_hf.training.run.optim import alignment_groups, freeze
from ciea_hf.training.run.stage_inputs import special_tokens
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.run.word_evaluator import WordEvaluator
from tests.support.helpers import TEXT_FAMILIES, tiny_model
from tests.support.toy_training import configured, moved, read_log, reset_engine, training_data

if TYPE_CHECKING:
    from pathlib import Path


def naive_score(patches: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean over the words of the highest cosine with a patch, by loops."""
    best = []
    for token, counts in zip(tokens, mask, strict=True):
        if counts:
            best.append(max(F.cosine_similarity(patch, token, dim=0).item() for patch in patches))
    return sum(best) / len(best)


def random_words(images: int = 3, captions: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(images, 5, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randn(captions, 6, 8, generator=generator, dtype=torch.float64)
    mask = torch.rand(captions, 6, generator=generator) < 0.6
    mask[:, 0] = True
    return patches, tokens, mask


def test_scores_equal_loops() -> None:
    patches, tokens, mask = random_words()
    scores = word_scores(patches, tokens, mask)
    for i, image in enumerate(patches):
        for c in range(len(tokens)):
            assert scores[i, c].item() == pytest.approx(naive_score(image, tokens[c], mask[c]))


def test_the_loss_of_equal_scores_is_the_logarithm_of_their_number() -> None:
    patches, tokens = torch.ones(4, 3, 8), torch.ones(4, 2, 8)
    mask, partners = torch.ones(4, 2, dtype=torch.bool), torch.eye(4).bool()
    loss = WordAlignmentLoss()(patches, patches, tokens, mask, tokens, mask, partners)
    assert loss.item() == pytest.approx(math.log(4))
    same_caption = torch.zeros(4, 4, dtype=torch.bool)
    same_caption[0, 1] = same_caption[1, 0] = True
    loss = WordAlignmentLoss()(patches, patches, tokens, mask, tokens, mask, partners, same_caption)
    assert loss.item() == pytest.approx((2 * math.log(3) + 2 * math.log(4)) / 4)


def test_the_loss_equals_a_cross_entropy_in_both_directions() -> None:
    patches, tokens, mask = random_words(4, 4)
    loss = WordAlignmentLoss(scale=7.0)(patches, patches, tokens, mask, tokens, mask, torch.eye(4).bool())
    scores, labels = word_scores(patches, tokens, mask) * 7.0, torch.arange(4)
    expected = (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
    torch.testing.assert_close(loss, expected)
    copies = WordAlignmentLoss(scale=7.0)(
        patches, patches.clone(), tokens, mask, tokens.clone(), mask, torch.eye(4).bool()
    )
    torch.testing.assert_close(copies, expected)  # as several processes compute it


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_batch_gives_patches_and_words_in_order(family: str) -> None:
    model, data = tiny_model(family), training_data()
    examples = AlignmentExamples(DocumentView(data, "image"))
    collator = Collator(model.processor, chunk_size=2)
    batch = collator([examples[SampleKey(0, 0, number)] for number in range(5)])
    special = special_tokens(model)
    patches, tokens, words = WordAligner(model, special)(batch.groups)
    table: Any = model.get_input_embeddings().weight
    for i, row in enumerate(batch.documents.tolist()):
        view = DocumentView(data)
        pixels = model.processor.image_processor([view.image(row)], return_tensors="pt")["pixel_values"]
        expected = model.projector(model.get_vision_features(pixels))[0]
        torch.testing.assert_close(patches[i], expected, atol=1e-5, rtol=1e-5)
        ids = model.processor.tokenizer(view.text(row), add_special_tokens=False)["input_ids"]
        kept = [token for token in ids if token not in special]
        torch.testing.assert_close(tokens[i][words[i]], table[kept])


def test_rates_follow_the_scale_of_each_part() -> None:
    model = tiny_model()
    freeze(model, ["vision", "text_body"])
    with torch.no_grad():
        weight: Any = model.get_input_embeddings().weight
        weight.mul_(50.0)
    table, projector = alignment_groups(model, 0.1)
    assert table["lr"] == pytest.approx(0.1 * weight.square().mean().sqrt().item())
    assert projector["lr"] == pytest.approx(0.1 * model.projector.weight.square().mean().sqrt().item())
    freeze(model, ["text"])
    assert [group["name"] for group in alignment_groups(model, 0.1)] == ["projector"]
    freeze(model, ["text", "projector"])
    with pytest.raises(ValueError, match="neither projector nor token table"):
        alignment_groups(model, 0.1)


def test_the_measure_counts_words_among_the_nearest() -> None:
    model, data = tiny_model(), training_data("dev")
    special = frozenset(special_tokens(model))
    view = DocumentView(data, "image")
    evaluator = WordEvaluator(view, model, Collator(model.processor), special, batch_size=7)
    aligner = WordAligner(model, sorted(special))
    share = evaluator(aligner)["words@4"]
    weight: Any = model.get_input_embeddings().weight
    table = F.normalize(weight, dim=-1)
    found = total = 0
    for row in evaluator.rows:
        pixels = model.processor.image_processor([view.image(row)], return_tensors="pt")["pixel_values"]
        patches = F.normalize(model.projector(model.get_vision_features(pixels))[0], dim=-1)
        near = set()
        for patch in patches:
            order = (table @ patch).argsort(descending=True).tolist()
            near |= set([token for token in order if token not in special][:4])
        words = set(model.processor.tokenizer(view.text(row), add_special_tokens=False)["input_ids"]) - special
        found, total = found + len(near & words), total + len(words)
    assert share == pytest.approx(found / total)
    assert total > 0


def test_the_stage_learns_the_words_and_trains_nothing_else(toy: Path, tmp_path: Path) -> None:
    config = configured(
        toy,
        tmp_path,
        stage="align",
        contrast="words",
        max_steps=120,
        eval_steps=40,
        batch_size=16,
        word_learning_rate=0.5,
    )
    result = run_stages(config)["align"]
    scores = [entry["words@4"] for entry in result["history"]]
    assert result["best_metric"] == max(scores) > 0.1
    losses = [line["alignment"] for line in read_log(tmp_path / "align")]
    assert losses[-1] < losses[0] - 0.8
    names = set(moved(tmp_path / "align" / "best", toy / "start"))
    assert names <= {"projector.weight", "projector.bias", "text_model.shared.weight"}
    assert "projector.weight" in names


def test_a_frozen_language_model_leaves_the_projector(toy: Path, tmp_path: Path) -> None:
    run_stages(configured(toy, tmp_path, stage="align", contrast="words", max_steps=4, freeze="vision,text",
                          stages={"align": {"freeze": ["vision", "text"]}}))  # fmt: skip
    assert set(moved(tmp_path / "align" / "best", toy / "start")) == {"projector.weight", "projector.bias"}


def test_cached_features_give_the_same_alignment(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    values: dict[str, Any] = {"stage": "align", "contrast": "words", "max_steps": 2}
    logs = []
    for name, cache in (("pixels", None), ("features", "auto")):
        reset_engine()
        run_stages(configured(toy, tmp_path / name, cache_vision_features=cache, **values))
        logs.append([line["alignment"] for line in read_log(tmp_path / name / "align")])
    assert logs[0] == pytest.approx(logs[1], abs=2e-2)  # features are stored in half precision


def test_the_objective_is_that_of_the_whole_batch() -> None:
    model, data = tiny_model(), training_data()
    examples = AlignmentExamples(DocumentView(data, "image"))
    batch = Collator(model.processor)([examples[SampleKey(0, 0, number)] for number in range(6)])
    aligner, objective = WordAligner(model, special_tokens(model)), WordObjective(30.0)
    losses = objective(*aligner(batch.groups), batch)
    patches, tokens, words = aligner(batch.groups)
    scores = word_scores(patches, tokens, words) * 30.0
    same = torch.zeros(6, 6, dtype=torch.bool)
    captions = [data.corpus[row]["text"] for row in batch.documents.tolist()]
    for i in range(6):
        for j in range(6):
            same[i, j] = i != j and captions[i] == captions[j]
    masked = scores.masked_fill(same, -1e9)
    labels = torch.arange(6)
    expected = (F.cross_entropy(masked, labels) + F.cross_entropy(masked.T, labels)) / 2
    torch.testing.assert_close(objective.total(losses), expected)
