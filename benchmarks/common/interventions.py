"""Do the complement weights matter? MRR@10 of a trained model when others stand in their place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from ciea_hf.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from ciea_hf.data import RetrievalDataset


def _mean(weights: torch.Tensor) -> torch.Tensor:
    return weights.mean(dim=1, keepdim=True).expand_as(weights)


def _shuffled(weights: torch.Tensor) -> torch.Tensor:
    order = torch.randperm(weights.shape[1], generator=torch.Generator().manual_seed(0))
    return weights[:, order.to(weights.device)]


def _inverted(weights: torch.Tensor) -> torch.Tensor:
    return weights.amax(dim=1, keepdim=True) + weights.amin(dim=1, keepdim=True) - weights


INTERVENTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "the model's own": lambda weights: weights,
    "their mean, for every patch": _mean,
    "shuffled among patches": _shuffled,
    "turned round within each picture": _inverted,
}


def scores_by_weights(model: Any, dataset: RetrievalDataset) -> dict[str, float]:
    """Evaluate a trained model with its complement weights replaced.

    Args:
        model: A model with an extractor.
        dataset: What is searched.

    Returns:
        Intervention to MRR@10 of image queries.
    """
    module = sys.modules[type(model).__module__]
    own = module.complement_weights
    scores = {}
    for name, change in INTERVENTIONS.items():
        with patch.object(module, "complement_weights", lambda *inputs, change=change: change(own(*inputs))):
            scores[name] = evaluate(model, dataset).by_kind["image"]["mrr@10"]
    return scores
