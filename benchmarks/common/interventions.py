"""MRR@10 of a trained model when its complement weights are replaced, which shows whether the weights matter."""

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
    "unchanged": lambda weights: weights,
    "mean over patches": _mean,
    "shuffled over patches": _shuffled,
    "inverted within each image": _inverted,
}


def scores_by_weights(model: Any, dataset: RetrievalDataset) -> dict[str, float]:
    """Evaluate a trained model with its complement weights replaced.

    Args:
        model: Model with an extractor.
        dataset: Evaluation data.

    Returns:
        MRR@10 of image queries by name of the intervention.
    """
    # A model loaded with remote code has its own copy of the modules, so the function is replaced in the module that
    # calls it for this model.
    module = sys.modules[type(model)._project_and_extract.__module__]
    original = module.complement_weights
    scores = {}
    for name, change in INTERVENTIONS.items():
        with patch.object(module, "complement_weights", lambda *inputs, change=change: change(original(*inputs))):
            scores[name] = evaluate(model, dataset).by_kind["image"]["mrr@10"]
    return scores
