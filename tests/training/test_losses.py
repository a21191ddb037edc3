"""Losses against closed forms and hand-computed cases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ciea_hf.training.loss.losses import (
    MAX_LOGIT_SCALE,
    AlignmentLoss,
    ComplementaryLoss,
    ContrastiveLoss,
    scaled_cosines,
    weighted_sum,
)

SCALE = torch.tensor(0.7, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive(logits: torch.Tensor, positives: list[list[int]], left_out: list[list[int]]) -> float:
    """The definition, query by query and positive by positive."""
    losses = []
    for row, own, out in zip(logits.tolist(), positives, left_out, strict=True):
        negatives = [math.exp(x) for j, x in enumerate(row) if j not in own and j not in out]
        terms = [-math.log(math.exp(row[p]) / (math.exp(row[p]) + sum(negatives))) for p in own]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("loss", [ContrastiveLoss(), ComplementaryLoss()])
@pytest.mark.parametrize("size", [1, 2, 64])
def test_zero_embeddings_give_log_of_batch(loss: Any, size: int) -> None:
    zeros = torch.zeros(size, 8)
    assert loss(zeros, zeros, torch.eye(size).bool(), torch.tensor(2.0)).item() == pytest.approx(math.log(size))


def test_zero_embeddings_give_log_of_batch_in_both_directions() -> None:
    zeros = torch.zeros(5, 8)
    loss = AlignmentLoss()(zeros, zeros, zeros, zeros, torch.eye(5).bool(), torch.tensor(1.0))
    assert loss.item() == pytest.approx(math.log(5))


def test_masked_documents_count_out_of_the_log() -> None:
    zeros = torch.zeros(4, 8)
    ignored = torch.zeros(4, 4).bool()
    ignored[:, 3] = True
    positives = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]).bool()
    assert ContrastiveLoss()(zeros, zeros, positives, SCALE, ignored).item() == pytest.approx(math.log(3))


def test_two_orthogonal_pairs_by_hand() -> None:
    queries = torch.tensor([[2.0, 0.0], [0.0, 0.5]], dtype=torch.float64)  # lengths do not matter
    loss = ContrastiveLoss()(queries, torch.eye(2, dtype=torch.float64), torch.eye(2).bool(), SCALE)
    scale = math.exp(0.7)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-scale)), abs=1e-12)


def test_cosines_are_scaled_and_the_scale_is_clamped() -> None:
    queries, documents = random(3, 5), random(4, 5, seed=1)
    cosines = F.cosine_similarity(queries[:, None], documents[None], dim=-1)
    torch.testing.assert_close(scaled_cosines(queries, documents, SCALE), cosines * math.exp(0.7))
    torch.testing.assert_close(scaled_cosines(queries, documents, SCALE + 50), cosines * 100.0)
    assert math.exp(MAX_LOGIT_SCALE) == pytest.approx(100.0)


def test_half_precision_is_scored_in_fp32() -> None:
    queries, documents = random(4, 16).bfloat16(), random(4, 16, seed=1).bfloat16()
    loss = ContrastiveLoss()(queries, documents, torch.eye(4).bool(), torch.tensor(4.0, dtype=torch.bfloat16))
    wide = ContrastiveLoss()(queries.float(), documents.float(), torch.eye(4).bool(), torch.tensor(4.0))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, wide)


@pytest.mark.parametrize("seed", range(5))
def test_several_positives_and_ignored_documents_as_defined(seed: int) -> None:
    queries, documents = random(3, 6, seed=seed), random(7, 6, seed=seed + 10)
    own, out = [[0, 4], [1], [2, 5, 6]], [[6], [], [0, 1]]
    positives, ignored = torch.zeros(3, 7).bool(), torch.zeros(3, 7).bool()
    for row in range(3):
        positives[row, own[row]] = True
        ignored[row, out[row]] = True
    loss = ContrastiveLoss()(queries, documents, positives, SCALE, ignored)
    expected = naive(scaled_cosines(queries, documents, SCALE), own, out)
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    assert ContrastiveLoss()(queries, documents, positives, SCALE).item() != pytest.approx(expected, abs=1e-3)


def test_ignored_documents_get_no_gradient() -> None:
    documents = random(4, 6, seed=1).requires_grad_()
    ignored = torch.zeros(2, 4).bool()
    ignored[:, 3] = True
    ContrastiveLoss()(random(2, 6), documents, torch.eye(2, 4).bool(), SCALE, ignored).backward()
    assert documents.grad is not None
    assert documents.grad[3].abs().max() == 0
    assert documents.grad[:3].abs().amin(dim=1).min() > 0


def test_total_divides_the_sum() -> None:
    queries, documents = random(4, 6), random(4, 6, seed=1)
    eye = torch.eye(4).bool()
    loss = ContrastiveLoss()
    parts = [loss(queries[part], documents, eye[part], SCALE, total=4) for part in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(parts[0] + parts[1], loss(queries, documents, eye, SCALE))


@pytest.mark.parametrize(("queries", "documents"), [(0, 3), (0, 0), (2, 2)])
def test_gradients_are_finite_without_negatives(queries: int, documents: int) -> None:
    """No query at all, no document at all, and queries whose every other document is masked."""
    left = random(queries, 6).requires_grad_()
    right = random(documents, 6, seed=1).requires_grad_()
    scale = SCALE.clone().requires_grad_()
    positives = torch.eye(queries, documents).bool()
    loss = ComplementaryLoss()(left, right, positives, scale, ~positives)
    assert loss.item() == 0.0
    loss.backward()
    for tensor in (left, right, scale):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_gradients_of_extreme_logits_are_finite() -> None:
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    documents = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    scale = torch.tensor(MAX_LOGIT_SCALE, requires_grad=True)
    loss = ContrastiveLoss()(queries, documents, torch.eye(2).bool(), scale)
    assert loss.item() == pytest.approx((200 + 0) / 2)
    loss.backward()
    assert torch.isfinite(queries.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(scale.grad)  # type: ignore[arg-type]


def test_false_negatives_above_the_margin_are_left_out() -> None:
    angles = torch.tensor([0.6, 0.0, 0.62, 1.5], dtype=torch.float64)  # cosines 0.825, 1, 0.814, 0.071
    documents = torch.stack([angles.cos(), angles.sin()], dim=1)
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    positives = torch.tensor([[True, False, False, False]])
    logits = scaled_cosines(query, documents, SCALE)
    for margin, left_out in ((None, []), (0.0, [1]), (0.02, [1, 2]), (0.9, [1, 2, 3])):
        loss = ContrastiveLoss(false_negative_margin=margin)(query, documents, positives, SCALE)
        assert loss.item() == pytest.approx(naive(logits, [[0]], [left_out]), abs=1e-12), margin


def test_alignment_is_the_mean_of_both_directions() -> None:
    captions, images = random(4, 6), random(4, 6, seed=1)
    eye = torch.eye(4).bool()
    one_way = ContrastiveLoss()
    loss = AlignmentLoss()(captions, captions, images, images, eye, SCALE)
    there, back = one_way(captions, images, eye, SCALE), one_way(images, captions, eye, SCALE)
    torch.testing.assert_close(loss, (there + back) / 2)
    assert there.item() != pytest.approx(back.item(), abs=1e-4)


def test_weighted_sum_is_by_name() -> None:
    losses = {"contrastive": torch.tensor(2.0), "complementary": torch.tensor(3.0)}
    assert weighted_sum(losses, {"complementary": 0.1}).item() == pytest.approx(2.3)


def test_wrong_shape_of_positives_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\); got \(2, 2\)"):
        ContrastiveLoss()(random(2, 4), random(3, 4), torch.eye(2).bool(), SCALE)
