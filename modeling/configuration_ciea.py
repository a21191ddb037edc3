"""Configuration of CIEA: a vision tower, a language model and the extractor between them."""

from __future__ import annotations

from typing import Any, Literal, get_args

from transformers import AutoConfig, PreTrainedConfig

from .errors_ciea import place, shorten
from .validation_ciea import check_sizes, check_types

Pooling = Literal["decoder_start", "cls", "mean", "last_token"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
ExtractorWeights = Literal["complement", "gate", "uniform"]
EXTRACTOR_WEIGHTS: tuple[str, ...] = get_args(ExtractorWeights)


class CIEAConfig(PreTrainedConfig):
    """Configuration of a [`CIEAModel`].

    The defaults follow the paper: CLIP ViT-B/32 and T5-base, connected by a linear projector and the complementary
    information extractor (section 3.2).

    Args:
        vision_config: Configuration of the vision tower, as an object or a dict with its `model_type`.
        text_config: Configuration of the language model, as an object or a dict with its `model_type`.
        use_extractor: Whether captioned images pass through the extractor. Without it the model is MARVEL.
        extractor_weights: Role of the complement weights, which tell how much of each patch the caption leaves out:
            `"complement"` multiplies the extractor's attention logits by them (the paper), `"gate"` replaces patches
            that the caption describes by one learnt vector, `"uniform"` ignores them (an ablation).
        extract_uncaptioned: Whether images without a caption pass through the extractor, too. In the paper they do
            not, and so differ from captioned images in their representation.
        extractor_num_heads: Number of attention heads of the extractor; must divide the language model's width.
        extractor_intermediate_size: Width of the extractor's feed-forward layer.
        extractor_dropout: Dropout probability of the extractor's attention weights and attention residual.
        extractor_layer_norm_eps: Epsilon of the extractor's layer norm.
        extractor_weight_floor: Threshold of the complement weight below which a patch is masked as an attention key.
        vision_feature_layer: Index of the tower's hidden states that holds the patches; -1 is its `last_hidden_state`.
        image_seq_length: Number of patches of an image, P. Derived from the tower's image and patch size if `None`;
            required for convolutional and hierarchical towers.
        pooling: Pooling strategy of the language model's states: `"decoder_start"` (the only state of a decoder that
            runs one step), `"cls"` (first token), `"mean"` (attended tokens) or `"last_token"` (last attended token).
            For an encoder-decoder, the last three pool its encoder. Chosen from the language model's kind if `None`.
        pooling_decoder_start_token_id: Token id that the decoder's single step starts from, with `"decoder_start"`.
        normalize_embeddings: Whether embeddings have unit length, as those of text encoders with a final normalisation.
        image_token_id: Token id of the placeholder `<im_patch>`, repeated P times for an image.
        image_start_token_id: Token id of `<im_start>`, which precedes a captioned image.
        image_end_token_id: Token id of `<im_end>`, which follows a captioned image.
        logit_scale_init_value: Natural logarithm of the initial inverse temperature.
        prompts: Prompts by name that `encode_query` and `encode_document` prepend to a text.

    Raises:
        ValueError: If an argument is out of range; the message names it.
    """

    model_type = "ciea"
    _auto_class = "AutoConfig"  # `save_pretrained` copies the code into the folder
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 (transformers' convention)

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        use_extractor: bool = True,
        extractor_weights: ExtractorWeights = "complement",
        extract_uncaptioned: bool = False,
        extractor_num_heads: int = 8,
        extractor_intermediate_size: int = 2048,
        extractor_dropout: float = 0.05,
        extractor_layer_norm_eps: float = 1e-5,
        extractor_weight_floor: float = 1e-5,
        vision_feature_layer: int = -1,
        image_seq_length: int | None = None,
        pooling: Pooling | None = None,
        pooling_decoder_start_token_id: int = 0,
        normalize_embeddings: bool = False,
        image_token_id: int = 32100,
        image_start_token_id: int = 32101,
        image_end_token_id: int = 32102,
        logit_scale_init_value: float = 2.6592,
        prompts: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vision_config = _sub_config(vision_config, "vision_config", {"model_type": "clip_vision_model"})
        self.text_config = _sub_config(text_config, "text_config", {"model_type": "t5", "d_model": 768})
        self.use_extractor = use_extractor
        self.extractor_weights = extractor_weights
        self.extract_uncaptioned = extract_uncaptioned
        self.extractor_num_heads = extractor_num_heads
        self.extractor_intermediate_size = extractor_intermediate_size
        self.extractor_dropout = extractor_dropout
        self.extractor_layer_norm_eps = extractor_layer_norm_eps
        self.extractor_weight_floor = extractor_weight_floor
        self.vision_feature_layer = vision_feature_layer
        self.image_seq_length = _patches_of(self.vision_config) if image_seq_length is None else image_seq_length
        self.pooling = pooling or _default_pooling(self.text_config)
        self.pooling_decoder_start_token_id = pooling_decoder_start_token_id
        self.normalize_embeddings = normalize_embeddings
        self.image_token_id = image_token_id
        self.image_start_token_id = image_start_token_id
        self.image_end_token_id = image_end_token_id
        self.logit_scale_init_value = logit_scale_init_value
        self.prompts = {"query": "", "document": ""} if prompts is None else prompts
        self._check()
        self.prompts = dict(self.prompts)
        super().__init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))  # peft reads it here

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings, which is the language model's width."""
        return int(self.text_config.hidden_size)

    @property
    def vision_hidden_size(self) -> int:
        """Width of the vision tower's states; for a convolutional tower, the width of its last stage."""
        config = self.vision_config
        if hasattr(config, "hidden_sizes"):
            return int(config.hidden_sizes[-1])
        return int(config.hidden_size if hasattr(config, "hidden_size") else config.hidden_dim)  # EfficientNet's name

    def _check(self) -> None:
        check_types(self)
        for name in ("vision_config", "text_config"):
            check_sizes(getattr(self, name).to_dict(), name)
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {', '.join(POOLINGS)}; got {shorten(self.pooling)}")
        if self.pooling == "decoder_start" and not self.text_config.is_encoder_decoder:
            raise ValueError(
                f"`pooling='decoder_start'` requires an encoder-decoder, unlike {self.text_config.model_type!r}; "
                "choose 'cls', 'mean' or 'last_token'"
            )
        if self.extractor_weights not in EXTRACTOR_WEIGHTS:
            raise ValueError(
                f"`extractor_weights` must be one of {', '.join(EXTRACTOR_WEIGHTS)}; "
                f"got {shorten(self.extractor_weights)}"
            )
        if self.use_extractor and self.hidden_size % self.extractor_num_heads:
            raise ValueError(
                f"`extractor_num_heads` must divide the language model's width {self.hidden_size}; "
                f"got {self.extractor_num_heads}"
            )
        if not 0.0 <= self.extractor_dropout < 1.0:
            raise ValueError(f"`extractor_dropout` must be in [0, 1); got {self.extractor_dropout}")


def _sub_config(value: Any, name: str, default: dict[str, Any]) -> PreTrainedConfig:
    """Build a sub-configuration from an object, a dict (as in `config.json`) or None."""
    if isinstance(value, PreTrainedConfig):
        return value
    if value is None:
        value = default
    if not isinstance(value, dict):
        raise TypeError(f"`{name}` must be a PreTrainedConfig or a dict; got {type(value).__name__}")
    settings = dict(value)
    model_type = settings.pop("model_type", default["model_type"])
    check_sizes(settings, name)
    with place(f"`{name}`"):
        return AutoConfig.for_model(model_type, **settings)


def _patches_of(vision_config: PreTrainedConfig) -> int:
    """Compute the number of patches of an image from the tower's image and patch size."""
    image_size, patch_size = (getattr(vision_config, name, None) for name in ("image_size", "patch_size"))
    if (
        image_size is None or patch_size is None or hasattr(vision_config, "depths")
    ):  # `depths`: later stages shrink the grid
        raise ValueError(
            f"`image_seq_length` is required: the configuration of {vision_config.model_type!r} does not determine the "
            "number of patches"
        )
    height, width = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    patch_height, patch_width = patch_size if isinstance(patch_size, list | tuple) else (patch_size, patch_size)
    return int(height // patch_height) * int(width // patch_width)


def _default_pooling(text_config: PreTrainedConfig) -> str:
    """Choose a pooling: decoder state for encoder-decoders, first token for encoders, last token for decoders."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES  # slow import

    if text_config.is_encoder_decoder:
        return "decoder_start"
    return "cls" if text_config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "last_token"
