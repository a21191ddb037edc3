"""Attributions: how much of a score each patch of an image carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def integrated_gradients(
    score: Callable[[torch.Tensor], torch.Tensor],
    features: torch.Tensor,
    baseline: torch.Tensor,
    steps: int,
    batch_size: int = 64,
) -> torch.Tensor:
    """Attribute the difference between the scores of an input and of a baseline to the input's patches.

    The gradient of the score is averaged along the straight line from the baseline to the input, by Gauss-Legendre
    quadrature, and multiplied by their difference (Sundararajan et al., ICML 2017). The attributions sum to the
    difference of the scores, up to the error of the quadrature (completeness).

    Args:
        score: Differentiable function from features (n, P, width) to scores (n,).
        features: Features of the input, (P, width).
        baseline: Features of the baseline, (P, width).
        steps: Number of points on the line.
        batch_size: Maximum number of points per call of `score`.

    Returns:
        Attributions, (P,), float32.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    difference = features - baseline
    total = torch.zeros(features.shape, dtype=torch.float32, device=features.device)
    shares = torch.tensor((points + 1) / 2, dtype=features.dtype, device=features.device)
    factors = torch.tensor(weights / 2, dtype=torch.float32, device=features.device)
    for share, factor in zip(shares.split(batch_size), factors.split(batch_size), strict=True):
        with torch.enable_grad():
            inputs = (baseline + share[:, None, None] * difference).requires_grad_()
            (gradients,) = torch.autograd.grad(score(inputs).sum(), inputs)
        total += torch.einsum("n,npw->pw", factor, gradients.float())
    return (difference.float() * total).sum(dim=-1)


def occlusion(score_hidden: Callable[[torch.Tensor], torch.Tensor], patches: int) -> torch.Tensor:
    """Attribute a score to patches by hiding each of them in turn.

    Args:
        score_hidden: Function from masks of hidden patches (n, P) to scores (n,).
        patches: Number P of patches.

    Returns:
        The score lost when each patch is hidden, (P,).
    """
    hidden = torch.cat([torch.zeros(1, patches, dtype=torch.bool), torch.eye(patches, dtype=torch.bool)])
    scores = score_hidden(hidden)
    return scores[0] - scores[1:]
