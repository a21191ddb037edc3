"""Freezing, optimiser groups and the learning rate schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ciea_hf.training.config import FREEZABLE
from ciea_hf.training.loss.losses import MAX_LOGIT_SCALE
from ciea_hf.training.run.accelerator import is_sharded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from accelerate import Accelerator

FUSED = {"cpu", "cuda"}  # types of devices with a fused AdamW
NEW_PARTS = ("projector", "extractor")


def freeze(model: nn.Module, parts: Iterable[str]) -> None:
    """Freeze parts of a model, and unfreeze all others.

    Args:
        model: A CIEAModel.
        parts: Parts from `FREEZABLE`: `"vision"` is the tower, `"text"` the language model, `"text_body"` the language
            model without its token table.

    Raises:
        ValueError: If a part is unknown.
    """
    chosen = set(parts)
    unknown = sorted(chosen - set(FREEZABLE))
    if unknown:
        raise ValueError(f"`freeze` must be a subset of {', '.join(FREEZABLE)}; got {', '.join(unknown)}")
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

    Biases, vectors (norms) and scalars (the logit scale) are not decayed. The projector and the extractor are not
    pretrained and may have their own learning rate.

    Args:
        model: A CIEAModel, after [`freeze`].
        learning_rate: Learning rate of pretrained parts.
        new_learning_rate: Learning rate of the projector and the extractor; `learning_rate` if `None`.
        weight_decay: Weight decay of matrices.

    Returns:
        Groups for a torch optimiser, each with a `name`, without empty ones.

    Raises:
        ValueError: If all parameters are frozen.
    """
    rates = {"pretrained": learning_rate, "new": learning_rate if new_learning_rate is None else new_learning_rate}
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in rates.items():
        for kind, decay in (("decayed", weight_decay), ("not decayed", 0.0)):
            group = f"{part}/{kind}"
            groups[group] = {"name": group, "params": [], "lr": rate, "weight_decay": decay}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "new" if name.split(".")[0] in NEW_PARTS else "pretrained"
            decayed = parameter.ndim >= 2 and "bias" not in name  # T5's relative position bias is a matrix
            decayed = decayed and not hasattr(parameter, "_trained_rows")  # decay would change the other rows
            groups[f"{part}/{'decayed' if decayed else 'not decayed'}"]["params"].append(parameter)
    found = [group for group in groups.values() if group["params"]]
    if not found:
        raise ValueError("`freeze` leaves no parameter to train")
    return found


def train_token_rows(model: nn.Module, tokens: Sequence[int]) -> None:
    """Train single rows of a frozen token table, such as those of new tokens; the others keep their values.

    Args:
        model: A CIEAModel, after [`freeze`].
        tokens: Token ids of the rows.
    """
    weight: nn.Parameter = model.get_input_embeddings().weight  # type: ignore[operator]
    rows = torch.zeros(len(weight), 1, dtype=weight.dtype)
    rows[list(tokens)] = 1.0
    weight.requires_grad_()
    weight.register_hook(lambda gradient: gradient * rows.to(gradient.device, gradient.dtype))
    weight._trained_rows = tuple(tokens)  # type: ignore[attr-defined]


def alignment_groups(model: nn.Module, relative_rate: float) -> list[dict[str, Any]]:
    """Return the parameters of the word alignment, projector and token table, with rates relative to their scale.

    The entries of a token table are about 1 in T5 and 0.02 in GPT-2, and AdamW moves every entry by about its learning
    rate per step. So the rate of each tensor is `relative_rate` times its root mean square.

    Args:
        model: A CIEAModel, after [`freeze`].
        relative_rate: Learning rate of a tensor whose root mean square is 1.

    Returns:
        Groups for a torch optimiser, each with a `name`.

    Raises:
        ValueError: If projector and token table are frozen.
    """
    table: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    projector: nn.Module = model.projector  # type: ignore[assignment]
    groups: list[dict[str, Any]] = []
    for part, module in (("table", table), ("projector", projector)):
        scale = float(module.weight.detach().float().square().mean().sqrt())  # type: ignore[operator]
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if trained:
            groups.append({"name": part, "params": trained, "lr": relative_rate * scale, "weight_decay": 0.0})
    if not groups:
        raise ValueError("`freeze` leaves neither projector nor token table to the word alignment")
    return groups


def set_dropout(module: nn.Module, probability: float) -> None:
    """Set all dropout probabilities of a module, without changing its configuration.

    Args:
        module: A language model or the extractor. Dropout layers and float attributes named after dropout are set.
        probability: Dropout probability.
    """
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = probability
        for name, value in vars(part).items():
            if "dropout" in name and isinstance(value, float):
                setattr(part, name, probability)


def build_optimizer(
    groups: Sequence[dict[str, Any]], betas: tuple[float, float], epsilon: float, fused: bool = True
) -> torch.optim.AdamW:
    """Build AdamW over the groups.

    Args:
        groups: See [`parameter_groups`].
        betas: Decay of the moments.
        epsilon: Term of the denominator.
        fused: Whether to use the fused kernel where there is one. It reads and writes each value once, without
            temporary copies of gradients and moments.

    Returns:
        The optimiser.
    """
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(list(groups), betas=betas, eps=epsilon, fused=(fused and devices <= FUSED) or None)


def clip_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor | float:
    """Scale the gradients to a maximum norm.

    Args:
        accelerator: Accelerator of the run.
        parameters: Parameters with gradients.
        limit: Maximum norm, or `None`; without a limit nothing is written.

    Returns:
        The norm before, still on the device if the engine allows it; 0 where the engine does not report it, as
        DeepSpeed in its first step.
    """
    if limit is None and accelerator.scaler is None and not is_sharded(accelerator):
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients)
    norm = accelerator.clip_grad_norm_(parameters, math.inf if limit is None else limit)
    if norm is None:
        return 0.0
    return float(norm) if is_sharded(accelerator) else norm


def build_schedule(optimizer: torch.optim.Optimizer, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Build a linear warm-up to the peak rate, then a cosine to 0 at the last step."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))

    return LambdaLR(optimizer, factor)


def resume_schedule(schedule: LambdaLR, step: int) -> None:
    """Advance a schedule to a step, after its optimiser's state has been loaded."""
    rates = [group["lr"] for group in schedule.optimizer.param_groups]
    state = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates, "lr_lambdas": [None] * len(rates)}
    schedule.load_state_dict(state)


@torch.no_grad()
def clamp_logit_scale(logit_scale: Tensor) -> None:
    """Limit the scale to ln 100, in place; above it the clamped loss has no gradient that could reduce it."""
    logit_scale.clamp_(max=MAX_LOGIT_SCALE)
