"""Inspection of a model: which patches of an image its caption leaves out, and image-only embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ciea_hf.modeling.evaluation_mode_ciea import evaluating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ciea_hf.modeling.modeling_ciea import CIEAModel

OVERLAY_SIZE = 448  # minimum length of the longer side in pixels
FADED_BRIGHTNESS = 0.25  # brightness of patches that the caption describes


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


def complement_map(model: CIEAModel, image: Any, caption: str) -> NDArray[np.float32]:
    """Compute how much of each patch of an image its caption leaves out (paper, section 3.2).

    Args:
        model: A model with an extractor.
        image: A PIL image or a path.
        caption: Caption of the image.

    Returns:
        Complement weights on the grid of patches, (rows, columns): near 1 where the caption says nothing about the
        patch, near 0 where it does.

    Raises:
        ValueError: If the model has no extractor or uniform weights, the caption is blank, or the patches do not form a
            square grid.

    Examples:
        >>> complement_map(model, "scene.png", "the necktie and the watermelon").shape  # doctest: +SKIP
        (7, 7)
    """
    if model.config.extractor_weights == "uniform":
        raise ValueError("`complement_map` needs complement weights; the model has `extractor_weights='uniform'`")
    weights = embed_images(model, [image], [caption]).weights
    if weights is None:
        raise ValueError("`complement_map` needs an extractor; the model has `use_extractor=False`")
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        raise ValueError(f"the tower's {weights.shape[1]} patches do not form a square grid")
    grid: NDArray[np.float32] = weights[0].float().cpu().numpy().reshape(side, side)
    return grid


def overlay_complement(model: CIEAModel, image: Any, caption: str) -> Image.Image:
    """Draw an image as the tower sees it, with the patches that the caption describes faded to dark grey.

    Brightness is scaled between the lowest and the highest complement weight of the image, so overlays of different
    captions are not comparable; their maps are.

    Args:
        model: A model with an extractor.
        image: A PIL image or a path.
        caption: Caption of the image.

    Returns:
        An RGB image.

    Raises:
        ValueError: As [`complement_map`].
    """
    weights = complement_map(model, image, caption)
    span = float(np.ptp(weights))
    share = (weights - weights.min()) / span if span else np.ones_like(weights)
    seen = _as_seen(model, image)
    scale = max(1, math.ceil(OVERLAY_SIZE / max(seen.size)))
    large = seen.resize((seen.width * scale, seen.height * scale), Image.Resampling.NEAREST)
    mask = Image.fromarray(np.rint(share * 255).astype(np.uint8)).resize(large.size, Image.Resampling.BILINEAR)
    faded = large.convert("L").point(lambda value: value * FADED_BRIGHTNESS).convert("RGB")
    return Image.composite(large, faded, mask)


def _embed(
    model: CIEAModel, images: Sequence[Any], captions: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    prompt = model.config.prompts.get("document", "")
    batch = model.processor(text=[prompt + caption for caption in captions], images=list(images)).to(model.device)
    features = model.get_vision_features(batch.pop("pixel_values"))
    first, second = (
        model(**batch, vision_features=features, image_only_from=part, output_patches=True)
        for part in ("extracted", "projected")
    )
    embeddings = first.embeddings, first.image_embeddings, second.image_embeddings
    documents, extracted, projected = (F.normalize(rows.float(), dim=-1) for rows in embeddings)
    return documents, extracted, projected, first.complement_weights


def _as_seen(model: CIEAModel, image: Any) -> Image.Image:
    """Return the preprocessed image, resized and cropped, with its colours restored."""
    processor = model.processor.image_processor
    pixels = model.processor(images=[image])["pixel_values"][0].float()
    if getattr(processor, "do_normalize", False):
        mean, deviation = (
            torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )
        pixels = pixels * deviation + mean
    return Image.fromarray(np.rint(pixels.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8))
