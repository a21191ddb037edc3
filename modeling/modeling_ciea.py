"""CIEA: one dense retriever for queries, texts and captioned images (Zeng et al., ACL 2025)."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils.import_utils import is_torchdynamo_exporting, torch_compilable_check

from .configuration_ciea import CIEAConfig
from .encoding_ciea import EncodingMixin
from .layers_ciea import (
    ComplementaryInformationExtractor,
    complement_weights,
    patch_states,
    pool_states,
    relative_gates,
)
from .output_ciea import CIEAOutput
from .serialization_ciea import SerializationMixin

PatchSource = Literal["extracted", "projected"]
UNSUPPORTED = ("inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds", "labels", "past_key_values")


class CIEAModel(EncodingMixin, SerializationMixin, PreTrainedModel):
    """A dense retriever over text and captioned images with a complementary information extractor.

    Each row of a batch is a text, an image with a caption, or an image alone; one batch may mix them. The patches of an
    image replace its `<im_patch>` tokens. If a caption follows, they pass through the extractor first.

    Args:
        config: Configuration of the model.
    """

    config_class = CIEAConfig
    base_model_prefix = "model"
    _auto_class = "AutoModel"  # `save_pretrained` copies the code into the folder
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012 (transformers' convention)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["ComplementaryInformationExtractor"]  # noqa: RUF012 (transformers' convention)

    def __init__(self, config: CIEAConfig) -> None:
        super().__init__(config)
        self.vision_model = AutoModel.from_config(config.vision_config)
        self.projector = nn.Linear(config.vision_hidden_size, config.hidden_size)
        self.extractor = ComplementaryInformationExtractor(config) if config.use_extractor else None
        self.text_model = AutoModel.from_config(config.text_config)
        table = cast("torch.Tensor", self.get_input_embeddings().weight)
        if table.shape[1] != config.hidden_size:
            raise ValueError(
                f"`text_config`: token embeddings and states must have the same width; this "
                f"{config.text_config.model_type!r} has {table.shape[1]} and {config.hidden_size}"
            )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token table."""
        return cast("nn.Module", self.text_model.get_input_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token table."""
        self.text_model.set_input_embeddings(value)

    def get_vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute patch states of the vision tower, which may be stored and passed to `forward` instead of pixels.

        Args:
            pixel_values: Images, (images, 3, height, width).

        Returns:
            Patch states without class or register tokens, (images, P, vision width).

        Raises:
            ValueError: If the tower returns fewer states than `image_seq_length`.
        """
        states = patch_states(self.vision_model, pixel_values, self.config.vision_feature_layer)
        patches = self.config.image_seq_length
        if states.shape[1] < patches:
            raise ValueError(
                f"`image_seq_length` is {patches}, but the vision tower returns only {states.shape[1]} states for "
                f"images of {pixel_values.shape[-2]} x {pixel_values.shape[-1]} pixels"
            )
        return states[:, -patches:]  # class and register tokens precede the patches

    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Embed texts, which [`forward`] does too; sentence-transformers looks for this name: (batch, hidden_size)."""
        embeddings: torch.Tensor = self(input_ids, attention_mask, return_dict=True, **kwargs).embeddings
        return embeddings

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Embed images, which [`forward`] does too; sentence-transformers looks for this name.

        Args:
            pixel_values: Images, (images, 3, height, width).
            input_ids: Placeholders as written by [`CIEAProcessor`], (images, T); those of images alone if `None`.
            attention_mask: 1 for tokens, 0 for padding, (images, T). All ones if `None`.
            **kwargs: Further arguments of [`forward`].

        Returns:
            Embeddings, (images, hidden_size).
        """
        if input_ids is None:
            shape = pixel_values.shape[0], self.config.image_seq_length
            input_ids = torch.full(shape, self.config.image_token_id, device=pixel_values.device)
        embeddings: torch.Tensor = self(
            input_ids, attention_mask, pixel_values=pixel_values, return_dict=True, **kwargs
        ).embeddings
        return embeddings

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: weights that a checkpoint lacks are initialised as for classes inside transformers."""
        return False

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        image_only_from: PatchSource | None = None,
        output_patches: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CIEAOutput | tuple[torch.Tensor, ...]:
        """Embed a batch of texts, captioned images and images.

        Args:
            input_ids: Token ids as written by [`CIEAProcessor`], (batch, T).
            attention_mask: 1 for tokens, 0 for padding, (batch, T). All ones if `None`.
            pixel_values: One image for every row with placeholders, in row order: (images, 3, height, width).
            vision_features: Precomputed `get_vision_features(pixel_values)` instead of `pixel_values`:
                (images, P, vision width).
            image_only_from: Also embed each image without its caption, from its `"extracted"` patches (the paper's
                figure) or its `"projected"` patches (the released code), as the complementary loss requires.
            output_patches: Whether to also return the patches and the complement weights.
            return_dict: Whether to return a [`CIEAOutput`] (the default) or a tuple.
            **kwargs: Further arguments of the language model; `None` values are dropped.

        Returns:
            Embeddings and the requested optional outputs.

        Raises:
            ValueError: If the numbers of images and placeholders differ, or an argument is invalid.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs_embeds = self.get_input_embeddings()(input_ids)  # (batch, T, D)
        features = self._features(pixel_values, vision_features)
        self._check_counts(input_ids, features)
        output = CIEAOutput()
        if features is not None:
            weights, gates, projected, extracted = self._project_and_extract(
                features, input_ids, attention_mask, inputs_embeds
            )
            inputs_embeds = self._insert(extracted, input_ids, inputs_embeds)
            if image_only_from is not None:
                output.image_embeddings = self._embed_image_only(image_only_from, projected, extracted)
            if output_patches:
                output.complement_weights, output.gates = weights, gates
                output.projected_patches, output.extracted_patches = projected, extracted
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if unsupported := kwargs.keys() & set(UNSUPPORTED):
            raise ValueError(
                f"CIEAModel embeds `input_ids` and images; it does not take {', '.join(sorted(unsupported))}"
            )
        embeddings, states = self._run_language_model(inputs_embeds, attention_mask, **kwargs)
        output.embeddings = F.normalize(embeddings, dim=-1) if self.config.normalize_embeddings else embeddings
        for name in ("hidden_states", "attentions"):
            found = getattr(states, name, None)
            setattr(output, name, getattr(states, f"encoder_{name}", None) if found is None else found)
        use_dict = return_dict if return_dict is not None else self.config.return_dict
        return output if use_dict else output.to_tuple()

    def _features(self, pixel_values: torch.Tensor | None, vision_features: torch.Tensor | None) -> torch.Tensor | None:
        if pixel_values is None:
            return vision_features
        if vision_features is not None:
            raise ValueError("`pixel_values` and `vision_features` are mutually exclusive; got both")
        return self.get_vision_features(pixel_values)

    def _check_counts(self, input_ids: torch.Tensor, features: torch.Tensor | None) -> None:
        if is_torchdynamo_exporting():  # ONNX has no operator for checks of values
            return
        images, patches = (0, self.config.image_seq_length) if features is None else features.shape[:2]
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

    def _embed_image_only(
        self, image_only_from: PatchSource, projected: torch.Tensor, extracted: torch.Tensor
    ) -> torch.Tensor:
        """Embed the patches without a caption: (images, D)."""
        if image_only_from not in ("extracted", "projected"):
            raise ValueError(f"`image_only_from` must be 'extracted', 'projected' or None; got {image_only_from!r}")
        patches = extracted if image_only_from == "extracted" else projected
        attention_mask = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        return self._run_language_model(patches, attention_mask)[0]

    def _run_language_model(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, Any]:
        """Run the language model and pool its states into one embedding per row: (batch, D), and its output."""
        pooling, language_model = self.config.pooling, self.text_model
        if pooling == "decoder_start":
            start = self.config.pooling_decoder_start_token_id
            kwargs["decoder_input_ids"] = torch.full_like(attention_mask[:, :1], start, dtype=torch.long)
        elif self.config.text_config.is_encoder_decoder:  # other poolings use the encoder alone
            language_model = self.text_model.get_encoder()
        if hasattr(self.config.text_config, "use_cache"):
            kwargs["use_cache"] = False
        inputs_embeds = inputs_embeds.to(self.text_model.dtype)
        outputs = language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, return_dict=True, **kwargs)
        return pool_states(outputs.last_hidden_state, attention_mask, pooling), outputs

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise CIEA's own layers as torch does; the towers have their own rules."""
        if isinstance(module, CIEAModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
        elif isinstance(module, ComplementaryInformationExtractor):
            if module.mask_embedding is not None:
                init.normal_(module.mask_embedding, std=0.02)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]
