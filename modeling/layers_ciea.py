"""Layers between the two towers: patch states, complement weights and the extractor (paper, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import maybe_autocast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .configuration_ciea import CIEAConfig


def patch_states(vision_model: PreTrainedModel, pixel_values: torch.Tensor, layer: int = -1) -> torch.Tensor:
    """Compute the states of a vision tower, including class and register tokens, which precede the patches.

    Args:
        vision_model: The vision tower.
        pixel_values: Images, (images, 3, height, width).
        layer: Index of the hidden states to return; -1 is `last_hidden_state`.

    Returns:
        States, (images, states, vision width). The feature map of a convolutional tower is flattened row by row.
    """
    outputs = vision_model(pixel_values.to(vision_model.dtype), return_dict=True, output_hidden_states=layer != -1)
    states: torch.Tensor = outputs.last_hidden_state if layer == -1 else outputs.hidden_states[layer]
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


def complement_weights(patches: torch.Tensor, token_embeddings: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Compute how much of each patch the caption leaves out.

    For patch j, `w_j = 1 - max_k (cos(patch_j, token_k) + 1.00001) / 2`: near 1 if the caption says nothing about the
    patch, near 0 if it does. The similarity of a masked token counts as 0, so every weight is 1 without a caption.
    Computed in float32 as one normalised matrix product.

    Args:
        patches: Projected patches, (images, P, D).
        token_embeddings: Input embeddings of the caption's tokens, (images, T, D).
        token_mask: True for caption tokens, (images, T).

    Returns:
        Complement weights, (images, P), float32.
    """
    with maybe_autocast(device_type=patches.device.type, enabled=False):  # autocast would use half precision
        patches = F.normalize(patches.float(), dim=-1)
        token_embeddings = F.normalize(token_embeddings.float(), dim=-1)
        similarity = (patches @ token_embeddings.transpose(1, 2) + 1.00001) / 2  # (images, P, T)
        return 1 - (similarity * token_mask[:, None, :]).amax(dim=-1)


def relative_gates(weights: torch.Tensor) -> torch.Tensor:
    """Convert complement weights to gates: near 1 for patches that the caption leaves out, near 0 for the others.

    The weights are standardised over the patches of each image, because their scale depends on the alignment of patches
    and tokens: `g_j = sigmoid(2 (z_j + 1))`. A patch one standard deviation below its image's mean is half open.

    Args:
        weights: Complement weights, (images, P), float32.

    Returns:
        Gates, (images, P), float32.
    """
    centred = weights - weights.mean(dim=-1, keepdim=True)
    return torch.sigmoid(2 * (centred / (weights.std(dim=-1, keepdim=True, correction=0) + 1e-6) + 1))


class ComplementaryInformationExtractor(GradientCheckpointingLayer):
    """One transformer layer over the patches of an image that attends to what the caption leaves out.

    Attention logits are multiplied by the squared complement weight of the *key* patch, and keys whose weight is below
    the floor are masked. The attention output is followed by a residual with dropout and a layer norm, then by a
    feed-forward layer with a plain residual and no norm.

    With `extractor_weights="gate"` attention is unweighted, and the layer reads `g_j x_j + (1 - g_j) m` instead of
    patch j, with the gates of [`relative_gates`] and one learnt vector m.

    Args:
        config: Configuration of the model (`extractor_*` and the language model's width).
    """

    def __init__(self, config: CIEAConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.extractor_num_heads
        self.weight_floor = config.extractor_weight_floor
        self.dropout = config.extractor_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=config.extractor_layer_norm_eps)
        self.fc1 = nn.Linear(width, config.extractor_intermediate_size)
        self.fc2 = nn.Linear(config.extractor_intermediate_size, width)
        self.mask_embedding = nn.Parameter(torch.zeros(width)) if config.extractor_weights == "gate" else None

    def forward(self, patches: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Extract what the caption leaves out.

        Args:
            patches: Projected patches, (images, P, D).
            weights: Complement weights, or gates with `extractor_weights="gate"`, (images, P).

        Returns:
            Extracted patches, (images, P, D).
        """
        if self.mask_embedding is not None:
            patches = torch.lerp(self.mask_embedding.expand_as(patches), patches, weights[..., None].to(patches.dtype))
            weights = torch.ones_like(weights)
        attended = self._attend(patches, weights)
        hidden: torch.Tensor = self.layer_norm(patches + F.dropout(attended, self.dropout, self.training))
        return hidden.add(self.fc2(F.leaky_relu(self.fc1(hidden), negative_slope=0.01)))

    def _attend(self, patches: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._heads(layer(patches)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        # The logit of key j times w_j^2 equals q (w_j^2 k_j). Weighting the keys instead of the logits keeps the fused
        # attention kernel usable.
        key = key * weights.square()[:, None, :, None].to(key.dtype)
        masked = torch.zeros_like(weights, dtype=query.dtype)
        masked = masked.masked_fill(weights < self.weight_floor, torch.finfo(query.dtype).min)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=masked[:, None, None, :], dropout_p=self.dropout if self.training else 0.0
        )  # (images, heads, P, D / heads)
        result: torch.Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return result

    def _heads(self, hidden: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = hidden.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)


def pool_states(states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool the states of a language model into one embedding per row.

    Args:
        states: (batch, T, D).
        attention_mask: 1 for tokens, 0 for padding, (batch, T).
        pooling: `"decoder_start"`, `"cls"`, `"mean"` or `"last_token"`.

    Returns:
        (batch, D).
    """
    if pooling == "decoder_start":
        return states[:, 0]
    if pooling == "mean":
        mask = attention_mask[..., None].to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    # The first or the last attended token, whichever side is padded: argmax finds the first maximum of the attended
    # positions, counted from the wanted end.
    positions = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
    order = positions if pooling == "last_token" else positions.flip(0)
    chosen = (order * attention_mask).argmax(dim=1)  # (batch,)
    return states[torch.arange(states.shape[0], device=states.device), chosen]
