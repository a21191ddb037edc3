"""CIEA: one dense retriever for queries, texts and captioned images (Zeng et al., ACL 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput
from transformers.utils.import_utils import is_torchdynamo_exporting, torch_compilable_check

from .configuration_ciea import CIEAConfig
from .encoding_ciea import EncodingMixin
from .layers_ciea import ComplementaryInformationExtractor, complement_weights, patch_states
from .serialization_ciea import AssemblyMixin

ImagePart = Literal["extracted", "projected"]


@dataclass
class CIEAOutput(ModelOutput):
    """What [`CIEAModel`] returns.

    Args:
        embeddings: Embeddings of the batch, (batch, hidden_size), not normalised.
        image_embeddings: With `image_only_from`, image-only embeddings (images, hidden_size), in row order.
        complement_weights: With `output_patches`, how much of each patch the caption leaves out: (images, P).
        projected_patches: With `output_patches`, the projector's output: (images, P, hidden_size).
        extracted_patches: With `output_patches`, what the language model reads: (images, P, hidden_size).
    """

    embeddings: torch.Tensor | None = None
    image_embeddings: torch.Tensor | None = None
    complement_weights: torch.Tensor | None = None
    projected_patches: torch.Tensor | None = None
    extracted_patches: torch.Tensor | None = None


class CIEAModel(EncodingMixin, AssemblyMixin, PreTrainedModel):
    """A dense retriever over text and captioned images with a complementary information extractor.

    A row of a batch is a text, an image with a caption, or an image alone; one batch may mix them. Patches of an image
    take the place of its `<im_patch>` tokens; if a caption follows them, they pass the extractor first.

    Args:
        config: The configuration.
    """

    config_class = CIEAConfig
    base_model_prefix = "model"
    _auto_class = "AutoModel"  # saving takes the code along
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012 (transformers reads it so)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["ComplementaryInformationExtractor"]  # noqa: RUF012 (transformers reads it so)

    def __init__(self, config: CIEAConfig) -> None:
        super().__init__(config)
        self.vision_model = AutoModel.from_config(config.vision_config)
        self.projector = nn.Linear(config.vision_hidden_size, config.hidden_size)
        self.extractor = ComplementaryInformationExtractor(config) if config.use_extractor else None
        self.text_model = AutoModel.from_config(config.text_config)
        table = cast("torch.Tensor", self.get_input_embeddings().weight)
        if table.shape[1] != config.hidden_size:
            raise ValueError(
                f"`text_config`: the token embeddings of this {config.text_config.model_type!r} have {table.shape[1]} "
                f"dimensions, its states {config.hidden_size}; choose a language model that has one width for both"
            )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token table."""
        return cast("nn.Module", self.text_model.get_input_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token table."""
        self.text_model.set_input_embeddings(value)

    def get_vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patch states of the vision tower, which may be stored and given to `forward` in place of pixels.

        Args:
            pixel_values: Images, (images, 3, height, width).

        Returns:
            Patch states without class or register tokens, (images, P, vision width).
        """
        states = patch_states(self.vision_model, pixel_values, self.config.vision_feature_layer)
        patches = self.config.image_seq_length
        if states.shape[1] < patches:
            raise ValueError(
                f"`image_seq_length` is {patches}, but the vision tower gives only {states.shape[1]} states for "
                f"images of {pixel_values.shape[-2]} x {pixel_values.shape[-1]} pixels"
            )
        return states[:, -patches:]  # class and register tokens stand before the patches

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        image_only_from: ImagePart | None = None,
        output_patches: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CIEAOutput | tuple[torch.Tensor, ...]:
        """Embed a batch of texts, captioned images and images.

        Args:
            input_ids: Token ids as [`CIEAProcessor`] writes them, (batch, T).
            attention_mask: 1 for tokens, 0 for padding, (batch, T). All ones if `None`.
            pixel_values: One image for every row with placeholders, in the order of the rows:
                (images, 3, height, width).
            vision_features: Precomputed `get_vision_features(pixel_values)` in place of `pixel_values`:
                (images, P, vision width).
            image_only_from: Also embed each image without its caption, from its `"extracted"` (the paper's figure)
                or its `"projected"` patches (the released code), as the complementary loss needs it.
            output_patches: Also return the patches and the complement weights.
            return_dict: Whether to return a [`CIEAOutput`] (the default) or a tuple.
            **kwargs: Handed to the language model, those that are `None` excepted.

        Returns:
            The embeddings, and what was asked for beside them.

        Raises:
            ValueError: If images and placeholders do not match in number, or an argument is out of its choices.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs_embeds = self.get_input_embeddings()(input_ids)  # (batch, T, D)
        features = self._features(pixel_values, vision_features)
        self._check_counts(input_ids, features)
        output = CIEAOutput()
        if features is not None:
            weights, projected, extracted = self._patches(features, input_ids, attention_mask, inputs_embeds)
            inputs_embeds = self._insert(extracted, input_ids, inputs_embeds)
            if image_only_from is not None:
                output.image_embeddings = self._embed_image_part(image_only_from, projected, extracted)
            if output_patches:
                output.complement_weights = weights
                output.projected_patches, output.extracted_patches = projected, extracted
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        output.embeddings = self._embed(inputs_embeds, attention_mask, **kwargs)
        use_dict = return_dict if return_dict is not None else self.config.return_dict
        return output if use_dict else output.to_tuple()

    def _features(self, pixel_values: torch.Tensor | None, vision_features: torch.Tensor | None) -> torch.Tensor | None:
        if pixel_values is None:
            return vision_features
        if vision_features is not None:
            raise ValueError("give `pixel_values` or `vision_features`, not both")
        return self.get_vision_features(pixel_values)

    def _check_counts(self, input_ids: torch.Tensor, features: torch.Tensor | None) -> None:
        if is_torchdynamo_exporting():  # ONNX knows no check of values
            return
        images, patches = (0, self.config.image_seq_length) if features is None else features.shape[:2]
        per_row = (input_ids == self.config.image_token_id).sum(dim=1)
        torch_compilable_check(
            (per_row.sum() == images * patches) & ((per_row == 0) | (per_row == patches)).all(),
            lambda: (
                f"images and placeholders do not match: {images} image(s) of {patches} patches, but `input_ids` hold "
                f"{per_row.tolist()} image token(s) by row; each row takes one image, {patches} tokens"
            ),
        )

    def _patches(
        self,
        features: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        inputs_embeds: torch.Tensor,
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Project the features; let those of captioned images pass the extractor.

        Returns:
            Complement weights (images, P) or `None` without an extractor, projected and extracted patches, (images, P,
            D). The extracted patches of an image alone are its projected ones.
        """
        is_image = input_ids == self.config.image_token_id  # (batch, T)
        projected = self.projector(features.to(self.projector.weight.dtype))
        if self.extractor is None:
            return None, projected, projected
        # the row of each image: the i-th image belongs to the i-th row that holds placeholders
        has_image = is_image.any(dim=1)
        nth = torch.arange(1, features.shape[0] + 1, device=input_ids.device)
        rows = ((has_image.cumsum(0) == nth[:, None]) & has_image).int().argmax(dim=1)  # (images,)
        # caption tokens: what is attended after the image (its end mark, "caption:", the caption, the end of sequence)
        after_image = is_image.cumsum(dim=1) * ~is_image > 0
        caption = (after_image & attention_mask.bool())[rows]  # (images, T)
        if self.config.extractor_weights == "uniform":
            weights = torch.ones(projected.shape[:2], device=projected.device)  # (images, P)
        else:
            weights = complement_weights(projected, inputs_embeds[rows], caption)
        extracted = self.extractor(projected, weights)
        captioned = caption.any(dim=1)[:, None, None]
        return weights, projected, torch.where(captioned, extracted, projected)

    def _insert(self, patches: torch.Tensor, input_ids: torch.Tensor, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Put the patches, in order, where the placeholders stand: (batch, T, D)."""
        is_image = input_ids == self.config.image_token_id
        nth = (is_image.flatten().cumsum(0) - 1).clamp(min=0)
        gathered = patches.flatten(0, 1)[nth].unflatten(0, (input_ids.shape[0], -1))
        return torch.where(is_image[..., None], gathered.to(inputs_embeds.dtype), inputs_embeds)

    def _embed_image_part(self, part: ImagePart, projected: torch.Tensor, extracted: torch.Tensor) -> torch.Tensor:
        if part not in ("extracted", "projected"):
            raise ValueError(f"`image_only_from` must be 'extracted', 'projected' or None, got {part!r}")
        patches = extracted if part == "extracted" else projected
        return self._embed(patches, torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device))

    def _embed(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Run the language model and pool its states to one embedding each: (batch, D)."""
        pooling, language_model = self.config.pooling, self.text_model
        if pooling == "decoder_start":
            start = self.config.pooling_decoder_start_token_id
            kwargs["decoder_input_ids"] = torch.full_like(attention_mask[:, :1], start, dtype=torch.long)
        elif self.config.text_config.is_encoder_decoder:  # its encoder alone
            language_model = self.text_model.get_encoder()
        if hasattr(self.config.text_config, "use_cache"):
            kwargs["use_cache"] = False
        inputs_embeds = inputs_embeds.to(self.text_model.dtype)
        outputs = language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        if pooling == "decoder_start":
            return cast("torch.Tensor", states[:, 0])
        if pooling == "mean":
            mask = attention_mask[..., None].to(states.dtype)
            return cast("torch.Tensor", (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        # the first token or the last one that is attended, whichever side is padded
        positions = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
        order = positions if pooling == "last_token" else positions.flip(0)
        chosen = (order * attention_mask).argmax(dim=1)  # (batch,)
        return cast("torch.Tensor", states[torch.arange(states.shape[0], device=states.device), chosen])

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what is CIEA's own as torch initialises it; the towers bring their own rules."""
        if isinstance(module, CIEAModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]
