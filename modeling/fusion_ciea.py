"""How images enter the language model's input: their patches are projected, extracted and put at their placeholders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.utils.import_utils import is_torchdynamo_exporting, torch_compilable_check

from .layers_ciea import complement_weights, relative_gates

if TYPE_CHECKING:
    Base = torch.nn.Module
else:
    Base = object

PatchSource = Literal["extracted", "projected"]


@dataclass
class ModelBatch:
    """Inputs that are padded to one length.

    Args:
        input_ids: Token ids as written by [`CIEAProcessor`], (batch, T).
        attention_mask: 1 for tokens, 0 for padding, (batch, T).
        vision_features: Patch states of the vision tower for every row with placeholders, in row order, (images, P,
            vision width); `None` without images.
        image_only_from: See [`CIEAModel.forward`].
        check_placeholders: See [`CIEAModel.forward`].
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    vision_features: torch.Tensor | None = None
    image_only_from: PatchSource | None = None
    check_placeholders: bool = True


class FusionMixin(Base):
    """Joins token embeddings and patches."""

    if TYPE_CHECKING:
        config: Any
        projector: torch.nn.Linear
        extractor: torch.nn.Module | None

    def check_placeholders(self, input_ids: torch.Tensor, images: int, patches: int | None = None) -> None:
        """Check that a batch has placeholders for its images, which makes the host wait for `input_ids` on a GPU.

        Args:
            input_ids: Token ids as written by [`CIEAProcessor`], (batch, T).
            images: Number of images.
            patches: Number of patches of an image; `image_seq_length` if `None`.

        Raises:
            ValueError: If the numbers of images and placeholders differ.
        """
        if is_torchdynamo_exporting():  # ONNX has no operator for checks of values
            return
        patches = self.config.image_seq_length if patches is None else patches
        per_row = (input_ids == self.config.image_token_id).sum(dim=1)
        torch_compilable_check(
            (per_row.sum() == images * patches) & ((per_row == 0) | (per_row == patches)).all(),
            lambda: (
                f"images and placeholders do not match: {images} image(s) of {patches} patches, but the rows of "
                f"`input_ids` contain {per_row.tolist()} image token(s); a row has no image or exactly {patches}"
            ),
        )

    def _project_and_extract(
        self,
        features: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        inputs_embeds: torch.Tensor,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Project the features and extract the patches of captioned images.

        Returns:
            Complement weights (images, P), or `None` without an extractor; gates (images, P), or `None` without any;
            projected and extracted patches, both (images, P, D). For an image without a caption the extracted patches
            are the projected ones, unless `extract_uncaptioned` is set.
        """
        is_image = input_ids == self.config.image_token_id  # (batch, T)
        projected = self.projector(features.to(self.projector.weight.dtype))
        if self.extractor is None:
            return None, None, projected, projected
        # Row of each image: the i-th image belongs to the i-th row with placeholders. Comparing running counts finds it
        # with static shapes and without a host-device synchronisation, which `nonzero` would need.
        has_image = is_image.any(dim=1)
        nth = torch.arange(1, features.shape[0] + 1, device=input_ids.device)
        rows = ((has_image.cumsum(0) == nth[:, None]) & has_image).int().argmax(dim=1)  # (images,)
        # Caption tokens are all attended tokens after the image, as in the released code: its end mark, the words of
        # the prefix "caption:", the caption and the end-of-sequence token.
        after_image = is_image.cumsum(dim=1) * ~is_image > 0
        caption = (after_image & attention_mask.bool())[rows]  # (images, T)
        captioned = caption.any(dim=1)  # (images,)
        gates = None
        if self.config.extractor_weights == "uniform":
            weights = torch.ones(projected.shape[:2], device=projected.device)  # (images, P)
        else:
            weights = complement_weights(projected, inputs_embeds[rows], caption)
        if self.config.extractor_weights == "gate":
            gates = torch.where(captioned[:, None], relative_gates(weights), 1.0)
        extracted = self.extractor(projected, weights if gates is None else gates)
        if not self.config.extract_uncaptioned:
            extracted = torch.where(captioned[:, None, None], extracted, projected)
        return weights, gates, projected, extracted

    def _insert(self, patches: torch.Tensor, input_ids: torch.Tensor, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Replace the placeholders by the patches, in order: (batch, T, D)."""
        is_image = input_ids == self.config.image_token_id
        nth = (is_image.flatten().cumsum(0) - 1).clamp(min=0)
        gathered = patches.flatten(0, 1)[nth].unflatten(0, (input_ids.shape[0], -1))
        return torch.where(is_image[..., None], gathered.to(inputs_embeds.dtype), inputs_embeds)
