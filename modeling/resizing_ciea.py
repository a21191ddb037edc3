"""Resizing of images before an image processor converts them to arrays, with the same result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from transformers.image_transforms import get_resize_output_image_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STANDARD = ("_preprocess", "_preprocess_image_like_inputs", "_prepare_image_like_inputs", "process_image",
            "convert_to_rgb", "resize")  # fmt: skip
"""Methods of transformers' `PilBackend` whose result is known to be the same for an image that already has its size."""


def resize_early(images: Iterable[Any], image_processor: Any) -> Iterator[Any]:
    """Resize images as an image processor is going to, one after the other.

    transformers' processors for Pillow convert an image to an array, back to an image to resize it, and to an array
    again. At full size these conversions take as long as decoding. Resized first, with the same filter to the same
    size, an image gives the same pixel values, and is not held at full size.

    Args:
        images: Images in mode RGB; others, such as preprocessed images, are left as they are.
        image_processor: Image processor that is called with the images, without arguments that override its settings.

    Yields:
        The images, unchanged if the image processor resizes in a way of its own.
    """
    early = _resizes_with_pillow(image_processor)
    for image in images:
        if early and isinstance(image, Image.Image) and image.mode == "RGB":
            yield image.resize(_target_size(image, image_processor.size), image_processor.resample)
        else:
            yield image


def _resizes_with_pillow(image_processor: Any) -> bool:
    from transformers.image_processing_backends import PilBackend  # late: texts alone do not need it

    kind = type(image_processor)
    if not issubclass(kind, PilBackend) or not image_processor.do_resize:
        return False
    if any(getattr(kind, name) is not getattr(PilBackend, name) for name in STANDARD):
        return False
    given = {name for name, value in dict(image_processor.size or {}).items() if value}
    return given in ({"shortest_edge"}, {"height", "width"}) and isinstance(image_processor.resample, int)


def _target_size(image: Image.Image, size: Any) -> tuple[int, int]:
    """Return the width and height to which `PilBackend.resize` scales an image."""
    if not size.shortest_edge:
        return size.width, size.height
    shape: Any = np.broadcast_to(np.uint8(0), (3, image.height, image.width))  # takes no memory
    height, width = get_resize_output_image_size(
        shape, size.shortest_edge, default_to_square=False, input_data_format="channels_first"
    )
    return width, height
