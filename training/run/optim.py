"""Optimiser groups, schedule and what is frozen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ciea_hf.training.config import FREEZABLE
from ciea_hf.training.loss.losses import MAX_LOGIT_SCALE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEW_PARTS = ("projector", "extractor")


def freeze(model: nn.Module, parts: Iterable[str]) -> None:
    """Take parts of a model out of training, and every other part into it.

    Args:
        model: A CIEAModel.
        parts: Of ``FREEZABLE``: ``"vision"`` the tower, ``"text"`` the language model, ``"text_body"`` the language
            model but for its token table, ``"projector"``, ``"extractor"``, ``"logit_scale"``.

    Raises:
        ValueError: If a part is not one of these.
    """
    chosen = set(parts)
    unknown = sorted(chosen - set(FREEZABLE))
    if unknown:
        raise ValueError(f"`freeze` knows {', '.join(FREEZABLE)}; got {', '.join(unknown)}")
    table: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    in_table = {id(parameter) for parameter in table.parameters()}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0].removesuffix("_model")
        frozen = part in chosen or ("text_body" in chosen and part == "text" and id(parameter) not in in_table)
        parameter.requires_grad_(not frozen)


def parameter_groups(
    model: nn.Module, learning_rate: float, new_learning_rate: float | None, weight_decay: float
) -> list[dict[str, Any]]:
    """Sort the trained parameters by learning rate and weight decay.

    Biases, vectors (norms) and scalars (the logit scale) are not decayed. The projector and the extractor, which no
    backbone brings, may have a rate of their own.

    Args:
        model: A CIEAModel with what is frozen frozen.
        learning_rate: Of pretrained parts.
        new_learning_rate: Of the projector and the extractor; ``learning_rate`` if None.
        weight_decay: Of matrices.

    Returns:
        Groups for a torch optimiser, each with a ``name``; empty ones are left out.

    Raises:
        ValueError: If nothing is left to train.
    """
    rates = {"pretrained": learning_rate, "new": learning_rate if new_learning_rate is None else new_learning_rate}
    groups: dict[str, dict[str, Any]] = {
        f"{part}/{kind}": {"name": f"{part}/{kind}", "params": [], "lr": rate, "weight_decay": decay}
        for part, rate in rates.items()
        for kind, decay in (("decayed", weight_decay), ("not decayed", 0.0))
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "new" if name.split(".")[0] in NEW_PARTS else "pretrained"
            decayed = parameter.ndim >= 2 and "bias" not in name  # T5's relative biases are a matrix
            groups[f"{part}/{'decayed' if decayed else 'not decayed'}"]["params"].append(parameter)
    found = [group for group in groups.values() if group["params"]]
    if not found:
        raise ValueError("nothing is left to train: `freeze` takes out every parameter")
    return found


def build_optimizer(groups: Sequence[dict[str, Any]], betas: tuple[float, float], epsilon: float) -> torch.optim.AdamW:
    """Build AdamW over the groups."""
    return torch.optim.AdamW(list(groups), betas=betas, eps=epsilon)


def build_schedule(optimizer: torch.optim.Optimizer, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Build a linear warm-up to the peak rate, then a cosine to 0 at the last step."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))

    return LambdaLR(optimizer, factor)


def resume_schedule(schedule: LambdaLR, step: int) -> None:
    """Put a schedule where it stood after so many steps; its optimiser's state has been loaded."""
    rates = [group["lr"] for group in schedule.optimizer.param_groups]
    state = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates, "lr_lambdas": [None] * len(rates)}
    schedule.load_state_dict(state)


@torch.no_grad()
def clamp_logit_scale(logit_scale: Tensor) -> None:
    """Keep the scale at or below ln 100, in place; beyond it the clamped loss has no gradient to bring it back."""
    logit_scale.clamp_(max=MAX_LOGIT_SCALE)
