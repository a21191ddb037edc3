"""Integrated gradients, occlusion and faithfulness of functions whose answers are known in closed form."""

from __future__ import annotations

import pytest
import torch

from ciea_hf.explain.attribution import integrated_gradients, occlusion, spread
from ciea_hf.explain.faithfulness import DRAWS, measure_faithfulness

FEATURES = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.0, 4.0]])
BASELINE = torch.tensor([[0.5, 0.0], [1.0, 1.0], [0.0, -1.0]])


def test_a_linear_score_is_attributed_exactly_with_one_step() -> None:
    weights = torch.tensor([[2.0, -1.0], [0.25, 3.0], [5.0, 1.0]])
    found = integrated_gradients(lambda x: (x * weights).sum(dim=(1, 2)), FEATURES, BASELINE, steps=1)
    torch.testing.assert_close(found, ((FEATURES - BASELINE) * weights).sum(dim=1))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_product_of_patches_is_shared_between_them(batch_size: int) -> None:
    # f = a b from (0, 0) to (a, b): each factor gets the integral of t a b, which is half of the product.
    features = torch.tensor([[3.0], [4.0], [9.0]])
    found = integrated_gradients(lambda x: x[:, 0, 0] * x[:, 1, 0], features, torch.zeros(3, 1), 5, batch_size)
    torch.testing.assert_close(found, torch.tensor([6.0, 6.0, 0.0]))


def test_attributions_sum_to_the_difference_of_scores() -> None:
    def score(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.sum(dim=2)).prod(dim=1) + x[:, 1].norm(dim=1)

    expected = score(FEATURES[None]) - score(BASELINE[None])
    found = integrated_gradients(score, FEATURES, BASELINE, steps=32)
    torch.testing.assert_close(found.sum(), expected[0], atol=1e-4, rtol=0)
    few = integrated_gradients(score, FEATURES, BASELINE, steps=1)
    assert abs(few.sum() - expected[0]) > 1e-2


def test_gradients_are_computed_where_they_are_switched_off() -> None:
    with torch.no_grad():
        found = integrated_gradients(lambda x: x.sum(dim=(1, 2)), FEATURES, BASELINE, steps=2)
    torch.testing.assert_close(found, (FEATURES - BASELINE).sum(dim=1))


def score_of(carried: torch.Tensor) -> object:
    """A score to which each visible patch adds what it carries."""
    return lambda hidden: (~hidden * carried).sum(dim=1)


def test_occlusion_is_the_mean_loss_of_the_four_windows_around_a_patch() -> None:
    carried = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
    # Windows of the first patch: itself, with its right neighbour, with the one below, and all four.
    first = (1 + (1 + 10) + (1 + 2) + (1 + 10 + 2 + 20)) / 4
    middle = ((1 + 10) + (10 + 100) + (1 + 10 + 2 + 20) + (10 + 100 + 20 + 200)) / 4
    found = occlusion(score_of(carried.flatten()), (2, 3)).reshape(2, 3)  # type: ignore[arg-type]
    assert found[0, :2].tolist() == [first, middle]
    assert occlusion(score_of(torch.tensor([8.0])), (1, 1)).tolist() == [8.0]  # type: ignore[arg-type]


def test_spreading_keeps_the_sum_and_favours_the_middle() -> None:
    values = torch.zeros(3, 4)
    values[1, 1] = 16.0
    found = spread(values.flatten(), (3, 4)).reshape(3, 4)
    assert found[:, :3].tolist() == [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    assert not found[:, 3].any()
    random = torch.randn(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(random, (4, 5)).sum(), random.sum())
    assert spread(torch.tensor([3.0]), (1, 1)).tolist() == [3.0]


def test_faithfulness_in_closed_form() -> None:
    carried = torch.arange(20.0)
    right = measure_faithfulness(carried, score_of(carried))  # type: ignore[arg-type]
    assert (right.removed, right.lost, right.lost_in_total) == (2, 19 + 18, 190)
    wrong = measure_faithfulness(-carried, score_of(carried))  # type: ignore[arg-type]
    assert wrong.lost == 0 + 1
    assert wrong.lost_at_random == right.lost_at_random
    assert 1 < right.lost_at_random < 37


def test_random_patches_are_drawn_without_repetition() -> None:
    seen: list[torch.Tensor] = []

    def score(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return torch.zeros(len(hidden))

    measure_faithfulness(torch.zeros(30), score)
    assert seen[0].sum(dim=1).tolist() == [0, 30, 3, *[3] * DRAWS]
    assert seen[0][2].nonzero().flatten().tolist() == [0, 1, 2]  # equal values: the first
