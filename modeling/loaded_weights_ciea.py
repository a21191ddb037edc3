"""What is wrong with a checkpoint: weights that are missing, of another shape or not finite are named on loading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger = logging.get_logger(__name__)


def missing_weights(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of weights that a checkpoint lacks or has in another shape.

    Args:
        report: Loading information of `PreTrainedModel.from_pretrained`.
    """
    mismatched = (entry[0] for entry in report.get("mismatched_keys") or ())
    return tuple(sorted({*(report.get("missing_keys") or ()), *mismatched}))


def weights_not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> tuple[str, ...]:
    """Return the names of weights that contain NaN or infinity; those without values, on `meta`, are skipped."""
    found = []
    for name, weight in weights:
        if weight.is_floating_point() and weight.device.type != "meta":
            total = weight.detach().sum(dtype=torch.float32 if weight.itemsize <= 4 else torch.float64)
            if not total.isfinite() and not weight.isfinite().all():  # the sum is faster, but may overflow
                found.append(name)
    return tuple(found)


def warn_of_weights(origin: Any, missing: tuple[str, ...], not_finite: tuple[str, ...]) -> None:
    """Warn of a checkpoint whose embeddings have no meaning."""
    if missing:
        logger.warning(
            "%s lacks %d weights of the model, such as %r. They are initialised at random: the embeddings have no "
            "meaning before training.",
            origin,
            len(missing),
            missing[0],
        )
    if not_finite:
        logger.warning("%s: the weights %s contain NaN or infinity.", origin, ", ".join(not_finite[:3]))
