"""T5 over several batches in one pass: linear layers see the tokens of all of them, attention each batch by itself.

A training step embeds texts, captioned images and images alone, whose lengths differ. Padded to one length they would
waste half of the computation, and in passes of their own each pass would read all weights and add up all gradients
again. The functions compute what transformers' T5 computes with the same weights, up to the order of additions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Batch = tuple[torch.Tensor, torch.Tensor]  # input embeddings (rows, T, D), attention mask (rows, T)

BLOCKS = ("T5Block", "MT5Block")
DTYPES = (torch.float32, torch.float64, torch.bfloat16)  # in float16, T5's blocks clamp their states
ATTENTION = "sdpa"


def supports(language_model: nn.Module) -> bool:
    """Return whether the functions below may replace a call of this language model.

    They do not call its blocks, only what these consist of. So they may not replace blocks that are wrapped, compiled,
    sharded or hooked, and they leave tracing to transformers' own code.
    """
    stacks = [getattr(language_model, name, None) for name in ("encoder", "decoder")]
    blocks = [block for stack in stacks for block in getattr(stack, "block", [])]
    if not blocks or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    config: Any = language_model.config
    if config._attn_implementation != ATTENTION or language_model.dtype not in DTYPES:
        return False
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in (language_model, *stacks)):
        return False
    return not any(_is_wrapped(module) for module in (language_model, *stacks, *blocks)) and all(map(_is_plain, blocks))


def _is_plain(block: nn.Module) -> bool:
    weight: Any = block.layer[0].SelfAttention.q.weight  # type: ignore[union-attr, index]
    is_tensor = not isinstance(weight, torch.Tensor) or type(weight) in (torch.Tensor, nn.Parameter)
    return type(block).__name__ in BLOCKS and is_tensor


def _is_wrapped(module: Any) -> bool:
    """Return whether a call of the module does more than its class's `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def encode(encoder: Any, batches: Sequence[Batch]) -> list[torch.Tensor]:
    """Run an encoder over several batches.

    Args:
        encoder: Encoder of a T5.
        batches: Input embeddings (rows, T, D) and attention mask (rows, T) of each batch.

    Returns:
        Last states of each batch, (rows, T, D).
    """
    shapes = [tuple(mask.shape) for _, mask in batches]
    biases = _attention_biases(encoder.block[0].layer[0].SelfAttention, [mask for _, mask in batches], encoder.dtype)
    hidden = encoder.dropout(torch.cat([embeddings.flatten(0, 1) for embeddings, _ in batches]))  # (tokens, D)
    for block in encoder.block:
        hidden = _run_block(block, _encoder_block, shapes, hidden, biases)
    hidden = encoder.dropout(encoder.final_layer_norm(hidden))
    return [states.unflatten(0, shape) for states, shape in _split(hidden, shapes)]


def _run_block(
    block: Any, function: Callable[..., torch.Tensor], shapes: Any, hidden: torch.Tensor, others: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Call the function of a block; if the block is checkpointed, its activations are computed again when needed."""
    call = partial(function, block, shapes)
    if block.gradient_checkpointing and block.training:
        checkpointed: torch.Tensor = block._gradient_checkpointing_func(call, hidden, *others)
        return checkpointed
    return call(hidden, *others)


def _encoder_block(
    block: Any, shapes: Sequence[tuple[int, ...]], hidden: torch.Tensor, *biases: torch.Tensor
) -> torch.Tensor:
    layer = block.layer[0]
    attended = _self_attention(layer.SelfAttention, layer.layer_norm(hidden), shapes, biases)
    result: torch.Tensor = block.layer[-1](hidden + layer.dropout(attended))
    return result


def _decoder_block(
    block: Any, masks: Sequence[torch.Tensor], hidden: torch.Tensor, *states: torch.Tensor
) -> torch.Tensor:
    own, cross = block.layer[0], block.layer[1]
    hidden = hidden + own.dropout(_attend_to_itself(own.SelfAttention, own.layer_norm(hidden)))
    attended = _cross_attention(cross.EncDecAttention, cross.layer_norm(hidden), states, masks)
    result: torch.Tensor = block.layer[-1](hidden + cross.dropout(attended))
    return result


def _split(tokens: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    return list(zip(tokens.split([rows * length for rows, length in shapes]), shapes, strict=True))


def _attention_biases(attention: Any, masks: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Join position bias and padding mask of each batch, once for all layers: (rows, heads, T, T)."""
    longest = max(mask.shape[1] for mask in masks)
    positions = attention.compute_bias(longest, longest, device=masks[0].device).to(dtype)  # (1, heads, T, T)
    biases = []
    for mask in masks:
        length = mask.shape[1]
        bias = positions[:, :, :length, :length]  # it depends on the distance alone
        biases.append(torch.where(mask[:, None, None, :].bool(), bias, torch.finfo(dtype).min))
    return biases


def _self_attention(
    attention: Any, hidden: torch.Tensor, shapes: Sequence[tuple[int, ...]], biases: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Attend within each row: tokens of all batches (tokens, D) to (tokens, D)."""
    projected = [_split(layer(hidden), shapes) for layer in (attention.q, attention.k, attention.v)]
    dropout = attention.dropout if attention.training else 0.0
    found = []
    for (query, shape), (key, _), (value, _), bias in zip(*projected, biases, strict=True):
        query, key, value = (  # noqa: PLW2901 (the same states in another shape)
            states.view(*shape, attention.n_heads, -1).transpose(1, 2) for states in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype), dropout_p=dropout, scale=attention.scaling
        )  # (rows, heads, T, D / heads)
        found.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    output: torch.Tensor = attention.o(torch.cat(found))
    return output


def decode_first(
    decoder: Any, start: torch.Tensor, states: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Run a decoder's first step over several batches.

    Args:
        decoder: Decoder of a T5.
        start: Embedding of the first token, (D,).
        states: States of the encoder for each batch, (rows, T, D).
        masks: Attention mask of each batch, (rows, T).

    Returns:
        The only state of each row, (rows, D) for each batch.
    """
    counts = [len(mask) for mask in masks]
    hidden = decoder.dropout((start + _zero_of_unused(decoder)).expand(sum(counts), -1))
    for block in decoder.block:
        hidden = _run_block(block, _decoder_block, masks, hidden, states)
    hidden = decoder.dropout(decoder.final_layer_norm(hidden))
    return list(hidden.split(counts))


def _zero_of_unused(decoder: Any) -> torch.Tensor | float:
    """Return 0 with a gradient of 0 for queries, keys and position biases of a single position, which have no effect.

    An optimiser skips parameters without a gradient. With one of 0 it decays their weights, as for transformers' T5, so
    that the weights after a training do not depend on how the model was run.
    """
    if not torch.is_grad_enabled():
        return 0.0
    attentions = [block.layer[0].SelfAttention for block in decoder.block]
    layers = [layer for attention in attentions for layer in (attention.q, attention.k)]
    layers.append(attentions[0].relative_attention_bias)
    entries = [weight.flatten()[0] for layer in layers for weight in layer.parameters() if weight.requires_grad]
    return 0.0 * torch.stack(entries).sum() if entries else 0.0


def _attend_to_itself(attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Attend to the only position: its weight is 1, whatever query, key and position bias are: (rows, D)."""
    values = attention.v(hidden).unflatten(-1, (attention.n_heads, -1))
    if attention.training and attention.dropout:
        values = values * F.dropout(values.new_ones(*values.shape[:2], 1), attention.dropout)
    output: torch.Tensor = attention.o(values.flatten(1))
    return output


def _cross_attention(
    attention: Any, hidden: torch.Tensor, states: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Attend from one query position per row to the states of the encoder: (rows, D).

    The logit of token t is q (W_k h_t), which equals (W_k^T q) h_t, and the output W_v (sum of a_t h_t). For a single
    query position the right-hand sides are cheaper by the width of a head, because keys and values of the tokens are
    never computed.
    """
    counts = [len(mask) for mask in masks]
    query = attention.q(hidden).unflatten(-1, (attention.n_heads, -1))  # (rows, heads, D / heads)
    absorbs = _is_plain_linear(attention.k) and _is_plain_linear(attention.v)
    if absorbs:
        query = _per_head(query, _head_weights(attention.k, attention.n_heads))  # (rows, heads, D)
    context = []
    for part, encoded, mask in zip(query.split(counts), states, masks, strict=True):
        if absorbs:
            keys = values = encoded
        else:  # heads as rows: (rows, T, heads, D / heads) to (rows * heads, T, D / heads)
            keys, values = (_head_rows(layer(encoded), attention.n_heads) for layer in (attention.k, attention.v))
            part = part.flatten(0, 1)[:, None]  # noqa: PLW2901 (the same queries in another shape)
        logits = (part @ keys.transpose(1, 2)).view(len(mask), attention.n_heads, -1)  # (rows, heads, T)
        logits = logits.masked_fill(mask[:, None] == 0, torch.finfo(logits.dtype).min)
        weights = F.dropout(logits.softmax(dim=-1), attention.dropout, attention.training).to(values.dtype)
        summed = weights.view(*part.shape[:2], -1) @ values
        context.append(summed.view(len(mask), attention.n_heads, -1))
    joined = torch.cat(context)
    if absorbs:
        joined = _per_head(joined, _head_weights(attention.v, attention.n_heads).transpose(1, 2))
    output: torch.Tensor = attention.o(joined.flatten(1))
    return output


def _head_rows(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Give each head a row of its own: (rows, T, D) to (rows * heads, T, D / heads)."""
    rows: torch.Tensor = states.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)
    return rows


def _head_weights(layer: nn.Linear, heads: int) -> torch.Tensor:
    """Return the weights of each head: (heads, D / heads, D)."""
    weights: torch.Tensor = layer.weight.unflatten(0, (heads, -1))
    return weights


def _per_head(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply each head by its own matrix: (rows, heads, n) and (heads, n, m) to (rows, heads, m)."""
    return torch.bmm(rows.transpose(0, 1), weights).transpose(0, 1)


def _is_plain_linear(layer: nn.Module) -> bool:
    """Return whether the layer is a matrix product and nothing else: no adapter, no quantisation, no hook."""
    return type(layer) is nn.Linear and layer.bias is None and not _is_wrapped(layer)
