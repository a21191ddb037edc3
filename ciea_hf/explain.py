"""Look inside CIEA: which parts of a picture its caption leaves out, and what the picture says alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ciea_hf.modeling.encoding_ciea import evaluating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ciea_hf.modeling.modeling_ciea import CIEAModel

OVERLAY_SIZE = 448  # px, of the longer side at least
FADED = 0.25  # brightness of what the caption says


class ImageParts(NamedTuple):
    """Embeddings of captioned pictures and of their image parts alone, all of length 1.

    Attributes:
        documents: Picture and caption together, (images, D).
        extracted: The patches that the extractor gives, without the caption: (images, D). Without an extractor the
            projected ones.
        projected: The patches before the extractor, without the caption: (images, D).
        weights: Complement weights of the patches, (images, P); None without an extractor.
    """

    documents: torch.Tensor
    extracted: torch.Tensor
    projected: torch.Tensor
    weights: torch.Tensor | None


@torch.inference_mode()
def embed_image_parts(
    model: CIEAModel, images: Sequence[Any], captions: Sequence[str], batch_size: int = 64
) -> ImageParts:
    """Embed captioned pictures, whole and in parts.

    Args:
        model: The model; what it drops out in training stays.
        images: PIL images or paths.
        captions: The caption of each.
        batch_size: Pictures of one forward pass.

    Returns:
        The embeddings, on the model's device.

    Raises:
        ValueError: If pictures and captions differ in number, there are none, or a caption is blank.
    """
    if len(images) != len(captions) or not images:
        raise ValueError(f"each picture needs one caption, got {len(images)} picture(s) and {len(captions)} caption(s)")
    blank = [caption for caption in captions if not isinstance(caption, str) or not caption.strip()]
    if blank:
        raise ValueError(f"a caption must be a text that holds a word, got {blank[0]!r}")
    starts = range(0, len(images), batch_size)
    with evaluating(model):
        batches = [_embed(model, images[i : i + batch_size], captions[i : i + batch_size]) for i in starts]
    documents, extracted, projected, weights = zip(*batches, strict=True)
    return ImageParts(
        torch.cat(documents), torch.cat(extracted), torch.cat(projected),
        None if model.extractor is None else torch.cat(weights),
    )  # fmt: skip


def complement_map(model: CIEAModel, image: Any, caption: str) -> NDArray[np.float32]:
    """Show how much of each patch of a picture its caption leaves out (paper, section 3.2).

    Args:
        model: A model with an extractor.
        image: A PIL image or a path.
        caption: Its caption.

    Returns:
        The complement weights on the grid of the tower's patches, (rows, columns): near 1 where the caption says
        nothing of the patch, near 0 where it does.

    Raises:
        ValueError: If the model has no extractor or weighs all patches alike, the caption is blank, or the patches form
            no square grid.

    Example:
        >>> complement_map(model, "scene.png", "the necktie and the watermelon").shape  # doctest: +SKIP
        (7, 7)
    """
    if model.config.extractor_weights == "uniform":
        raise ValueError("the model weighs all patches alike (`extractor_weights='uniform'`): there is no map to show")
    weights = embed_image_parts(model, [image], [caption]).weights
    if weights is None:
        raise ValueError("the model has no extractor (`use_extractor=False`), so it weighs no patches")
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        raise ValueError(f"the tower's {weights.shape[1]} patches form no square grid")
    grid: NDArray[np.float32] = weights[0].float().cpu().numpy().reshape(side, side)
    return grid


def overlay_complement(model: CIEAModel, image: Any, caption: str) -> Image.Image:
    """Draw a picture as the tower sees it, with what the caption says faded to dark grey.

    Brightness runs from the picture's lowest complement weight to its highest, so that pictures of different captions
    are compared by their maps, not by their overlays.

    Args:
        model: A model with an extractor.
        image: A PIL image or a path.
        caption: Its caption.

    Returns:
        An RGB picture.

    Raises:
        ValueError: As :func:`complement_map`.
    """
    weights = complement_map(model, image, caption)
    span = float(np.ptp(weights))
    share = (weights - weights.min()) / span if span else np.ones_like(weights)
    seen = _as_seen(model, image)
    scale = max(1, math.ceil(OVERLAY_SIZE / max(seen.size)))
    large = seen.resize((seen.width * scale, seen.height * scale), Image.Resampling.NEAREST)
    mask = Image.fromarray(np.rint(share * 255).astype(np.uint8)).resize(large.size, Image.Resampling.BILINEAR)
    faded = large.convert("L").point(lambda value: value * FADED).convert("RGB")
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
    """The picture behind the image processor: resized, cropped, its colours restored."""
    processor = model.processor.image_processor
    pixels = model.processor(images=[image])["pixel_values"][0].float()
    if getattr(processor, "do_normalize", False):
        mean, deviation = (
            torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )
        pixels = pixels * deviation + mean
    return Image.fromarray(np.rint(pixels.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8))
