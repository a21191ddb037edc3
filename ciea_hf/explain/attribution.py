"""Attributions: how much of a score each patch of an image carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOWS_OF_PATCH = 4  # windows of 2 x 2 patches that contain a patch


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


def spread(values: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Spread the value of each patch over its neighbours, with weights 1 2 1 in both directions.

    Objects extend over several patches, and a language model need not read all of them, so that the values within one
    object vary a lot. The sum of all values stays the same.

    Args:
        values: Values, (P,).
        grid: Rows and columns; their product is P.

    Returns:
        Values, (P,).
    """
    line = torch.tensor([1.0, 2.0, 1.0], device=values.device)
    kernel = torch.outer(line, line)[None, None]
    shares = F.conv2d(torch.ones(1, 1, *grid, device=values.device), kernel, padding=1)  # each patch gives away 1
    return F.conv2d(values.float().reshape(1, 1, *grid) / shares, kernel, padding=1).flatten()


def occlusion(score_hidden: Callable[[torch.Tensor], torch.Tensor], grid: tuple[int, int]) -> torch.Tensor:
    """Attribute a score to patches by hiding windows of 2 x 2 patches in turn, also those that overlap the border.

    Args:
        score_hidden: Function from masks of hidden patches (n, P) to scores (n,).
        grid: Rows and columns; their product is P.

    Returns:
        The score lost when a window is hidden, mean over the four windows that contain the patch, (P,).
    """
    rows, columns = (torch.arange(count + 1)[:, None] - torch.arange(count) for count in grid)
    inside = [((offset == 0) | (offset == 1)) for offset in (rows, columns)]  # (windows, patches) in each direction
    windows = (inside[0][:, None, :, None] & inside[1][None, :, None, :]).flatten(2).flatten(0, 1)  # (windows, P)
    nothing = torch.zeros(1, windows.shape[1], dtype=torch.bool)
    scores = score_hidden(torch.cat([nothing, windows])).float()
    lost = scores[0] - scores[1:]
    return windows.to(lost).T @ lost / WINDOWS_OF_PATCH
