"""GradCache (Gao et al., 2021): forward passes without a graph, repeated with one in the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Embed = Callable[..., tuple[Tensor, Tensor]]


def embed_cached(embed: Embed, inputs: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Call a function without a graph; the backward pass calls it again with one, and with the same random state.

    Between the two calls only inputs and outputs are kept in memory. To autograd the call is one operation on the
    parameters. Their gradients are summed over all calls before they are accumulated, so that an engine such as DDP
    synchronises each parameter once per step, whatever the number of calls.

    Args:
        embed: Function that returns two tensors depending on the parameters.
        inputs: Arguments of the function, which receive no gradient.
        parameters: Parameters that receive gradients.

    Returns:
        The two tensors.
    """
    found: tuple[Tensor, Tensor] = _Replayed.apply(embed, tuple(inputs), *parameters)  # type: ignore[no-untyped-call]
    return found


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embed: Embed, inputs: tuple[Tensor | None, ...], *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.embed, ctx.inputs, ctx.parameters = embed, inputs, parameters
        ctx.device = parameters[0].device
        ctx.random = _random_states(ctx.device)
        kind = ctx.device.type
        ctx.autocast = {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        return embed(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        devices = [ctx.device] if ctx.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), torch.autocast(ctx.device.type, **ctx.autocast):
            _set_random_states(ctx.device, ctx.random)
            outputs = ctx.embed(*ctx.inputs)
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        if not pairs:
            return (None, None, *(None for _ in ctx.parameters))
        reached, incoming = zip(*pairs, strict=True)
        return (None, None, *torch.autograd.grad(reached, ctx.parameters, incoming, allow_unused=True))


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_states(device: torch.device, states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
