"""Faithfulness of a map: whether the patches that it marks are those that the score depends on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = 0.1  # share of the patches that are removed
DRAWS = 4  # random choices of patches that the map is compared with


class Faithfulness(NamedTuple):
    """The score lost when patches of the image are removed, that is, painted in the image's mean colour.

    A map is faithful if the patches that it marks cost much more than random ones.

    Attributes:
        removed: Number of removed patches, a tenth of all.
        lost: Score lost without the patches of the highest values.
        lost_at_random: Score lost without as many random patches, mean over several draws.
        lost_in_total: Score lost without all patches.
    """

    removed: int
    lost: float
    lost_at_random: float
    lost_in_total: float


def highest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return the positions of the highest values, the first of equal ones: (count,)."""
    return values.cpu().argsort(descending=True, stable=True)[:count]


def measure_faithfulness(values: torch.Tensor, score_hidden: Callable[[torch.Tensor], torch.Tensor]) -> Faithfulness:
    """Remove the patches of the highest values, random ones, and all.

    Args:
        values: Values of a map, (P,).
        score_hidden: Function from masks of removed patches (n, P) to scores (n,).

    Returns:
        The scores lost. The random patches are the same in every call with the same number of patches.
    """
    patches = len(values)
    removed = math.ceil(SHARE * patches)
    generator = torch.Generator().manual_seed(0)
    chosen = [highest(values, removed)]
    chosen += [torch.randperm(patches, generator=generator)[:removed] for _ in range(DRAWS)]
    masks = torch.zeros(len(chosen) + 2, patches, dtype=torch.bool)  # the first row removes nothing
    masks[1] = True
    masks[2:].scatter_(1, torch.stack(chosen), value=True)
    whole, nothing, top, *random = score_hidden(masks).tolist()
    return Faithfulness(removed, whole - top, whole - sum(random) / DRAWS, whole - nothing)
