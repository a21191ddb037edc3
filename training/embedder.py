"""What Accelerate wraps: one call embeds a batch, so an engine sees one forward pass for each backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.batch import InputGroup


class Embedder(nn.Module):
    """Embeds the groups of a batch.

    With ``gradient_cache`` each group is embedded without keeping its activations, and once more, with the same random
    state, when the backward pass reaches it: GradCache (Gao et al., 2021), as torch's checkpointing does it. Memory is
    then that of the largest group, whatever the size of the batch.

    Args:
        model: The model that is trained.
        image_part: Also embed each image alone, from these patches.
        gradient_cache: Whether activations are recomputed group by group.
    """

    def __init__(
        self,
        model: CIEAModel,
        image_part: Literal["extracted", "projected"] | None = None,
        gradient_cache: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.image_part = image_part
        self.gradient_cache = gradient_cache

    def forward(self, groups: Sequence[InputGroup]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed all groups.

        Args:
            groups: Forward passes, on any device; there may be none.

        Returns:
            Embeddings (rows of all groups, D), image parts (images of all groups, D; none without ``image_part``, and
            in evaluation mode), and the logarithm of the logit scale.
        """
        embeddings, parts = [], []
        for given in groups:
            group = given.to(self.model.logit_scale.device)  # one by one, so that pixels of one at a time take memory
            features = self._vision_features(group)
            pixel_values = group.pixel_values if features is None else None
            tensors = (group.input_ids, group.attention_mask, pixel_values, features)
            if self.gradient_cache and torch.is_grad_enabled():
                rows, part = checkpoint(self._embed, *tensors, use_reentrant=False)
            else:
                rows, part = self._embed(*tensors)
            embeddings.append(rows)
            parts.append(part)
        nothing = self.model.logit_scale.new_empty(0, self.model.config.hidden_size)
        logit_scale = self.model.logit_scale * 1.0  # an output of this pass, not the parameter itself
        return torch.cat(embeddings or [nothing]), torch.cat(parts or [nothing]), logit_scale

    def train(self, mode: bool = True) -> Embedder:
        """Switch the mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self._vision_is_frozen():
            self.model.vision_model.eval()
        return self

    def _vision_is_frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.model.vision_model.parameters())

    def _vision_features(self, group: InputGroup) -> Tensor | None:
        """What a frozen tower says of the images, once a step; None where there are none, or the tower is trained."""
        if group.vision_features is not None or group.pixel_values is None or not self._vision_is_frozen():
            return group.vision_features
        with torch.no_grad():
            return self.model.get_vision_features(group.pixel_values)

    def _embed(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None, vision_features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with_images = pixel_values is not None or vision_features is not None
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            vision_features=vision_features,
            image_part=self.image_part if with_images and self.training else None,
            return_dict=True,
        )
        parts = output.image_embeddings
        return output.embeddings, output.embeddings[:0] if parts is None else parts
