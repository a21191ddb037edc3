"""Models and inputs of the benchmark of speed: random weights at the paper's sizes or tiny ones, random words."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, T5Config

from ciea_hf import CIEAConfig, CIEAModel, CIEAProcessor
from ciea_hf.miniature.text import build_tokenizer

if TYPE_CHECKING:
    from ciea_hf.modeling.images_ciea import PreprocessedImage

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "base": {
        "vision": {
            "image_size": 224, "patch_size": 32, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        "text": {"vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    },
    "demo": {
        "vision": {
            "image_size": 112, "patch_size": 16, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
        "text": {"vocab_size": 2100, "d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4},
    },
    "tiny": {
        "vision": {
            "image_size": 32, "patch_size": 16, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "text": {"vocab_size": 2100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    },
}  # fmt: skip
"""CLIP ViT-B/32 and T5-base, the demonstration's towers, and a model for tests."""
WORDS = [f"w{number}" for number in range(2000)]
QUERY_WORDS, CAPTION_WORDS = (7, 23), (12, 30)  # least and most; a word is a token
SHARED = 0.3  # share of a query's words that its caption contains


@dataclass
class Sample:
    """Inputs of one measurement; input number i of each list belongs together.

    Attributes:
        queries: Texts of queries, 16 tokens on average.
        captions: Captions, 24 tokens on average with their prefix and the end mark.
        images: Images as the vision tower's input.
    """

    queries: list[str]
    captions: list[str]
    images: list[PreprocessedImage]


def build_model(size: str, dropout: float | None = None) -> CIEAModel:
    """Build a model with its processor.

    Args:
        size: One of `SIZES`.
        dropout: Dropout probability of the language model and of the extractor; their defaults if `None`.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(0)
    sizes = SIZES[size]
    dropouts: list[dict[str, Any]] = [{}, {}]
    if dropout is not None:
        dropouts = [{"dropout_rate": dropout}, {"extractor_dropout": dropout}]
    vision = CLIPVisionConfig(**sizes["vision"])
    text = T5Config(**sizes["text"], **dropouts[0])
    side, patch = sizes["vision"]["image_size"], sizes["vision"]["patch_size"]
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor = CIEAProcessor(images, build_tokenizer([*WORDS, "caption:"]), (side // patch) ** 2)
    tokenizer: Any = processor.tokenizer
    tokenizer.model_max_length = 512
    config = CIEAConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=processor.image_token_id,
        image_start_token_id=processor.image_start_token_id,
        image_end_token_id=processor.image_end_token_id,
        extractor_num_heads=min(8, text.num_heads),
        **dropouts[1],
    )
    model = CIEAModel(config)
    model.processor = processor
    return model.eval()


def make_sample(model: CIEAModel, rows: int, length: int | None = None, images: int | None = None) -> Sample:
    """Create random inputs.

    Args:
        model: Model, which determines the size of the images.
        rows: Number of inputs of each kind.
        length: Number of words of every query and caption; random ones if `None`.
        images: Number of different images, which are repeated; all are different if `None`.

    Returns:
        The inputs, equal in every call.
    """
    from ciea_hf.modeling.images_ciea import PreprocessedImage

    rng = random.Random(0)
    queries, captions = [], []
    for _ in range(rows):
        caption = rng.choices(WORDS, k=length or rng.randint(*CAPTION_WORDS))
        query = rng.choices(WORDS, k=length or rng.randint(*QUERY_WORDS))
        shared = rng.sample(range(len(query)), round(SHARED * len(query)))
        for position in shared:
            query[position] = rng.choice(caption)
        queries.append(" ".join(query))
        captions.append(" ".join(caption))
    side = model.config.vision_config.image_size
    different = min(images or rows, rows)
    pixels = torch.randn(different, 3, side, side, generator=torch.Generator().manual_seed(0))
    return Sample(queries, captions, [PreprocessedImage(pixels[row % different]) for row in range(rows)])
