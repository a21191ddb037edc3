"""CIEA: one dense retriever for queries, texts and captioned images (Zeng et al., ACL 2025)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init

from .configuration_ciea import CIEAConfig
from .encoding_ciea import EncodingMixin
from .fusion_ciea import FusionMixin, ModelBatch, PatchSource
from .language_model_ciea import LanguageModelMixin
from .layers_ciea import ComplementaryInformationExtractor, patch_states
from .output_ciea import CIEAOutput
from .serialization_ciea import SerializationMixin
from .t5_ciea import supports

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSUPPORTED = ("inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds", "labels", "past_key_values")


class CIEAModel(EncodingMixin, FusionMixin, LanguageModelMixin, SerializationMixin, PreTrainedModel):
    """A dense retriever over text and captioned images with a complementary information extractor.

    Each row of a batch is a text, an image, or both. The patches of an image replace its `<im_patch>` tokens; if a
    caption follows, they pass through the extractor first.

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
    _supports_flash_attn = _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["ComplementaryInformationExtractor"]  # noqa: RUF012 (transformers' convention)
    _tied_weights_keys = {}  # noqa: RUF012 (peft reads those of the towers only if this is a dict)

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
        check_placeholders: bool = True,
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
            check_placeholders: Whether to compare the numbers of images and placeholders, for which the host waits for
                a GPU. `encode` does so itself, before it copies the inputs.
            **kwargs: Further arguments of the language model; `None` values are dropped.

        Returns:
            Embeddings and the requested optional outputs.

        Raises:
            ValueError: If the numbers of images and placeholders differ, or an argument is invalid.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        features = self._features(pixel_values, vision_features)
        batch = ModelBatch(input_ids, attention_mask, features, image_only_from, check_placeholders)
        (output,) = self.embed_batches([batch], output_patches, **kwargs)
        use_dict = return_dict if return_dict is not None else self.config.return_dict
        return output if use_dict else output.to_tuple()

    def embed_batches(
        self,
        batches: Sequence[ModelBatch],
        output_patches: bool = False,
        **kwargs: Any,
    ) -> list[CIEAOutput]:
        """Embed several batches of different lengths, as [`forward`] embeds each of them.

        T5 embeds all of them in one pass, in which no row is padded to the length of another batch.

        Args:
            batches: Batches, with the vision tower's features in place of pixels.
            output_patches: See [`forward`].
            **kwargs: Further arguments of the language model; `None` values are dropped.

        Returns:
            The outputs of the batches.

        Raises:
            ValueError: As [`forward`].
        """
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if unsupported := kwargs.keys() & set(UNSUPPORTED):
            raise ValueError(
                f"CIEAModel embeds `input_ids` and images; it does not take {', '.join(sorted(unsupported))}"
            )
        joins = not kwargs and supports(self.text_model)
        tokens, start = self._token_embeddings(batches, joins)
        outputs, inputs, image_only = [], [], []
        for batch, inputs_embeds in zip(batches, tokens, strict=True):
            output, joined, images = self._join_images(batch, inputs_embeds, output_patches)
            outputs.append(output)
            inputs.append((joined, batch.attention_mask))
            if images is not None:
                image_only.append((output, (images, torch.ones_like(images[..., 0], dtype=torch.long))))
        found = self._run_language_model([*inputs, *(given for _, given in image_only)], start, **kwargs)
        for output, (embeddings, states) in zip(outputs, found, strict=False):
            output.embeddings = F.normalize(embeddings, dim=-1) if self.config.normalize_embeddings else embeddings
            for name in ("hidden_states", "attentions"):
                value = getattr(states, name, None)
                setattr(output, name, getattr(states, f"encoder_{name}", None) if value is None else value)
        for (output, _), (embeddings, _) in zip(image_only, found[len(outputs) :], strict=True):
            output.image_embeddings = embeddings
        return outputs

    def _join_images(
        self,
        batch: ModelBatch,
        inputs_embeds: torch.Tensor,
        output_patches: bool,
    ) -> tuple[CIEAOutput, torch.Tensor, torch.Tensor | None]:
        """Put the patches of a batch at their placeholders.

        Returns:
            The output, with patches and weights if requested; the input of the language model (batch, T, D); and the
            patches to embed without a caption (images, P, D), or `None`.
        """
        output = CIEAOutput()
        features, image_only_from = batch.vision_features, batch.image_only_from
        if batch.check_placeholders:
            self.check_placeholders(batch.input_ids, *((0,) if features is None else features.shape[:2]))
        if features is None:
            return output, inputs_embeds, None
        weights, gates, projected, extracted = self._project_and_extract(
            features, batch.input_ids, batch.attention_mask, inputs_embeds
        )
        if image_only_from not in ("extracted", "projected", None):
            raise ValueError(f"`image_only_from` must be 'extracted', 'projected' or None; got {image_only_from!r}")
        if output_patches:
            output.complement_weights, output.gates = weights, gates
            output.projected_patches, output.extracted_patches = projected, extracted
        images = {"extracted": extracted, "projected": projected, None: None}[image_only_from]
        return output, self._insert(extracted, batch.input_ids, inputs_embeds), images

    def _features(self, pixel_values: torch.Tensor | None, vision_features: torch.Tensor | None) -> torch.Tensor | None:
        if pixel_values is None:
            return vision_features
        if vision_features is not None:
            raise ValueError("`pixel_values` and `vision_features` are mutually exclusive; got both")
        return self.get_vision_features(pixel_values)

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
