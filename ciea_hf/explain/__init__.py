"""Inspection of a model: why an image is found, and what it adds to its caption."""

from __future__ import annotations

from ciea_hf.explain.drawing import draw_explanations, explanation_image, save_explanations
from ciea_hf.explain.explanation import Explanation, explain
from ciea_hf.explain.faithfulness import Faithfulness
from ciea_hf.explain.image_embeddings import ImageEmbeddings, embed_images

__all__ = [
    "Explanation",
    "Faithfulness",
    "ImageEmbeddings",
    "draw_explanations",
    "embed_images",
    "explain",
    "explanation_image",
    "save_explanations",
]
