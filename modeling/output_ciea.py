"""Output of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers.utils.generic import ModelOutput

if TYPE_CHECKING:
    import torch


@dataclass
class CIEAOutput(ModelOutput):
    """Output of [`CIEAModel`].

    Args:
        embeddings: Embeddings of the batch, (batch, hidden_size); normalised only if the configuration says so.
        image_embeddings: With `image_only_from`, image-only embeddings (images, hidden_size), in row order.
        complement_weights: With `output_patches`, how much of each patch the caption leaves out: (images, P).
        gates: With `output_patches` and `extractor_weights="gate"`, the gates of the patches: (images, P).
        projected_patches: With `output_patches`, the projector's output: (images, P, hidden_size).
        extracted_patches: With `output_patches`, the patches that the language model reads: (images, P, hidden_size).
        hidden_states: With `output_hidden_states`, the language model's states over the input, one per layer and one of
            the embeddings, each (batch, T, hidden_size); of an encoder-decoder, those of its encoder.
        attentions: With `output_attentions`, the language model's attention over the input, one per layer, each
            (batch, heads, T, T); of an encoder-decoder, that of its encoder.
    """

    embeddings: torch.Tensor | None = None
    image_embeddings: torch.Tensor | None = None
    complement_weights: torch.Tensor | None = None
    gates: torch.Tensor | None = None
    projected_patches: torch.Tensor | None = None
    extracted_patches: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
