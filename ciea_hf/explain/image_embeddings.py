"""Embeddings of images with their captions and alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional as F

from ciea_hf.explain.document import document_prompt
from ciea_hf.modeling.evaluation_mode_ciea import evaluating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.modeling.modeling_ciea import CIEAModel


class ImageEmbeddings(NamedTuple):
    """Embeddings of captioned images and of the images alone, all of unit length.

    Attributes:
        documents: Embeddings of images with captions, (images, D).
        extracted: Image-only embeddings of the extracted patches, (images, D). Without an extractor the same as
            `projected`.
        projected: Image-only embeddings of the projected patches, (images, D).
        weights: Complement weights of the patches, (images, P); None without an extractor.
    """

    documents: torch.Tensor
    extracted: torch.Tensor
    projected: torch.Tensor
    weights: torch.Tensor | None


@torch.inference_mode()
def embed_images(
    model: CIEAModel, images: Sequence[Any], captions: Sequence[str], batch_size: int = 64
) -> ImageEmbeddings:
    """Embed captioned images with their captions and alone.

    Args:
        model: The model; evaluated without dropout.
        images: PIL images or paths.
        captions: Caption of each image.
        batch_size: Number of images per forward pass.

    Returns:
        Embeddings, on the model's device.

    Raises:
        ValueError: If images and captions differ in number, there are none, or a caption is blank.
    """
    if len(images) != len(captions) or not images:
        raise ValueError(f"each image needs one caption; got {len(images)} image(s) and {len(captions)} caption(s)")
    blank = [caption for caption in captions if not isinstance(caption, str) or not caption.strip()]
    if blank:
        raise ValueError(f"captions must be non-blank texts; got {blank[0]!r}")
    starts = range(0, len(images), batch_size)
    with evaluating(model):
        batches = [_embed(model, images[i : i + batch_size], captions[i : i + batch_size]) for i in starts]
    documents, extracted, projected, weights = zip(*batches, strict=True)
    return ImageEmbeddings(
        torch.cat(documents), torch.cat(extracted), torch.cat(projected),
        None if model.extractor is None else torch.cat(weights),
    )  # fmt: skip


def _embed(
    model: CIEAModel, images: Sequence[Any], captions: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    prompt = document_prompt(model)
    batch = model.processor(text=[prompt + caption for caption in captions], images=list(images)).to(model.device)
    features = model.get_vision_features(batch.pop("pixel_values"))
    first, second = (
        model(**batch, vision_features=features, image_only_from=part, output_patches=True)
        for part in ("extracted", "projected")
    )
    embeddings = first.embeddings, first.image_embeddings, second.image_embeddings
    documents, extracted, projected = (F.normalize(rows.float(), dim=-1) for rows in embeddings)
    return documents, extracted, projected, first.complement_weights
