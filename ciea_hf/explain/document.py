"""A document with an image as a function of its image: parts of the image can be hidden, and it is embedded again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ciea_hf.modeling.encoding_ciea import TASK_PROMPTS
from ciea_hf.modeling.evaluation_mode_ciea import input_device

if TYPE_CHECKING:
    from ciea_hf.modeling.modeling_ciea import CIEAModel


def document_prompt(model: CIEAModel) -> str:
    """Return the prompt that `encode_document` prepends to captions."""
    prompts = model.config.prompts
    return next((str(prompts[name]) for name in TASK_PROMPTS["document"] if name in prompts), "")


def patch_grid(model: CIEAModel, height: int, width: int) -> tuple[int, int]:
    """Compute rows and columns of the patches of an image.

    Args:
        model: The model.
        height: Height of the vision tower's input in pixels.
        width: Width of the vision tower's input in pixels.

    Returns:
        Rows and columns; their product is the number of patches.

    Raises:
        ValueError: If the patches do not form a grid.
    """
    patches = int(model.config.image_seq_length)
    size = getattr(model.config.vision_config, "patch_size", None)
    if size is not None:
        patch_height, patch_width = size if isinstance(size, list | tuple) else (size, size)
        if (height // patch_height) * (width // patch_width) == patches:
            return height // patch_height, width // patch_width
    rows = round(math.sqrt(patches * height / width))  # a feature map that keeps the aspect ratio
    if not rows or patches % rows or round(patches / rows * height / width) != rows:
        raise ValueError(f"the {patches} patches of an image of {height} x {width} pixels do not form a grid")
    return rows, patches // rows


class ImageDocument:
    """One document with an image, whose embedding is a function of its pixels or of its patch features.

    Use it within `evaluating(model)`.

    Args:
        model: The model.
        image: Image in any form that `encode_document` takes.
        caption: Caption, or `None`.
        batch_size: Maximum number of versions of the document per forward pass.
    """

    def __init__(self, model: CIEAModel, image: Any, caption: str | None, batch_size: int) -> None:
        self.model = model
        self.batch_size = batch_size
        text = caption if caption is None else document_prompt(model) + caption
        batch = model.processor(text=[text], images=[image]).to(input_device(model))
        self.pixels: torch.Tensor = batch.pop("pixel_values")  # (1, 3, height, width)
        self.tokens = dict(batch)  # each (1, T)
        self.grid = patch_grid(model, *self.pixels.shape[-2:])

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.grid[0] * self.grid[1]

    def hide(self, hidden: torch.Tensor) -> torch.Tensor:
        """Paint patches in the mean colour of the image.

        Args:
            hidden: True for patches to hide, (versions, P).

        Returns:
            Pixel values, (versions, 3, height, width).
        """
        mask = hidden.to(self.pixels.device).float().unflatten(1, self.grid)[:, None]
        mask = F.interpolate(mask, size=self.pixels.shape[-2:]) > 0.5
        return torch.where(mask, self.pixels.mean(dim=(2, 3), keepdim=True), self.pixels)

    def features(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute patch features with patches hidden, without gradients: (versions, P, vision width)."""
        with torch.no_grad():
            groups = hidden.split(self.batch_size)
            return torch.cat([self.model.get_vision_features(self.hide(group)) for group in groups])

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Embed the document with other patch features; gradients flow to these.

        Args:
            features: Patch features, (versions, P, vision width).

        Returns:
            Unit rows, (versions, D), float32.
        """
        rows = []
        for group in features.split(self.batch_size):
            tokens = {name: ids.expand(len(group), -1) for name, ids in self.tokens.items()}
            embeddings = self.model(**tokens, vision_features=group, return_dict=True).embeddings
            rows.append(F.normalize(embeddings.float(), dim=-1))
        return torch.cat(rows)

    def embed_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        """Embed the document with patches hidden, (versions, P) booleans, without gradients: (versions, D)."""
        with torch.no_grad():
            return self.embed(self.features(hidden))

    def weights(self, gates: bool) -> torch.Tensor:
        """Return the complement weights of the patches, or the gates that the forward pass computes from them: (P,)."""
        with torch.no_grad():
            features = self.features(self.nothing_hidden())
            output = self.model(**self.tokens, vision_features=features, output_patches=True, return_dict=True)
        found: torch.Tensor = (output.gates if gates else output.complement_weights)[0]
        return found

    def nothing_hidden(self) -> torch.Tensor:
        """Return the mask that hides no patch, (1, P)."""
        return torch.zeros(1, self.patches, dtype=torch.bool)

    def as_seen(self) -> Image.Image:
        """Return the image as the vision tower sees it, resized and cropped, with its colours restored."""
        processor = self.model.processor.image_processor
        pixels = self.pixels[0].float().cpu()
        if getattr(processor, "do_normalize", False):
            mean, deviation = (
                torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std)
            )
            pixels = pixels * deviation + mean
        return Image.fromarray(np.rint(pixels.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8))
