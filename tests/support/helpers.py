"""Tiny random models and processors of every family, made without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, BatchFeature, CLIPImageProcessorPil, PreTrainedTokenizerFast

from ciea_hf import CIEAConfig, CIEAModel, CIEAProcessor

WORDS = [
    "a", "the", "of", "with", "and", "red", "blue", "green", "small", "big", "cat", "dog", "house", "tree", "car",
    "boat", "apple", "bread", "hammer", "tower", "next", "to", "under", "over", "photo", "drawing", "caption", ":",
    "query", "who", "what", "where", "is", "in", "on", "picture",
]  # fmt: skip
SPECIALS = {
    "t5": ("<pad>", "</s>", "<unk>"),
    "bart": ("<s>", "<pad>", "</s>", "<unk>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
    "gpt2": ("<|endoftext|>",),
}
TEXT_FAMILIES = tuple(SPECIALS)
HIDDEN = 32
PATCHES = 4  # of an image of 32 x 32 pixels in patches of 16
VOCABULARY = 64


def tiny_tokenizer(family: str = "t5") -> PreTrainedTokenizerFast:
    """A word-level tokenizer with the special tokens and the template of the family."""
    specials = SPECIALS[family]
    vocabulary = {word: index for index, word in enumerate([*specials, *WORDS])}
    unknown = next((token for token in specials if "unk" in token.lower()), specials[0])
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    template = {"t5": "$A </s>", "bart": "<s> $A </s>", "bert": "[CLS] $A [SEP]"}.get(family)
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(word, vocabulary[word]) for word in template.split() if word in specials]
        )
    names = {
        "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "bart": {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"},
        "bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "gpt2": {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    }[family]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def tiny_processor(family: str = "t5", **kwargs: Any) -> CIEAProcessor:
    """A processor for images of 32 x 32 pixels, 4 patches."""
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CIEAProcessor(image_processor, tiny_tokenizer(family), image_seq_length=PATCHES, **kwargs)


def text_config(family: str = "t5") -> Any:
    """Configuration of a language model of width 32 with 2 layers."""
    settings: dict[str, dict[str, Any]] = {
        "t5": {"d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        "bart": {
            "d_model": HIDDEN, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 80,
            "pad_token_id": 1,
        },
        "bert": {
            "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
            "max_position_embeddings": 80,
        },
        "gpt2": {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": 80},
    }  # fmt: skip
    return AutoConfig.for_model(family, vocab_size=VOCABULARY, **settings[family])


def vision_config(kind: str = "clip_vision_model", **kwargs: Any) -> Any:
    """Configuration of a vision tower of width 24 with 2 layers for images of 32 x 32 pixels."""
    transformer = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 16,
    }  # fmt: skip
    settings: dict[str, dict[str, Any]] = {
        "dinov2_with_registers": {**transformer, "num_register_tokens": 3},
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 24], "depths": [1, 1]},
        "swin": {
            "image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4,
        },
    }  # fmt: skip
    return AutoConfig.for_model(kind, **{**settings.get(kind, transformer), **kwargs})


def tiny_model(text: str = "t5", vision: str = "clip_vision_model", seed: int = 0, **kwargs: Any) -> CIEAModel:
    """A random CIEA model with its processor, in evaluation mode."""
    processor = tiny_processor(text)
    torch.manual_seed(seed)
    config = CIEAConfig(
        vision_config=vision_config(vision),
        text_config=text_config(text),
        image_token_id=processor.image_token_id,
        image_start_token_id=processor.image_start_token_id,
        image_end_token_id=processor.image_end_token_id,
        extractor_intermediate_size=48,
        **{"extractor_num_heads": 4, **kwargs},
    )
    model = CIEAModel(config)
    processor.image_seq_length = config.image_seq_length
    model.processor = processor
    return model.eval()


def toy_image(seed: int = 0, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A random image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mixed_batch(model: CIEAModel) -> BatchFeature:
    """The mixed inputs as one batch."""
    inputs = [value if isinstance(value, dict) else {"text": None, "image": value} for value in mixed_inputs()]
    for value in inputs:
        if isinstance(value["image"], str):
            value["text"], value["image"] = value["image"], None
    return model.processor(text=[value["text"] for value in inputs], images=[value["image"] for value in inputs])


def mixed_inputs() -> list[Any]:
    """Texts, images and captioned images, of several lengths, mixed."""
    return [
        "a red cat",
        {"text": "the small house with a tree", "image": toy_image(1)},
        toy_image(2),
        "where is the big blue boat next to the green tower",
        {"text": "bread", "image": toy_image(3)},
        {"text": "apple and bread on the car", "image": None},
        {"text": None, "image": toy_image(4)},
    ]
