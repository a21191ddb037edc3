"""What a downloaded processor may ask for: sizes that no vision tower reads are refused, before memory is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_IMAGE_SIDE = 2048  # pixels; today's towers read 224 to 1024
MAX_IMAGE_PATCHES = 65_536  # of 8 x 8 pixels, in an image of that side
SIZES = ("size", "crop_size", "pad_size", "max_image_size")


def check_image_size(settings: Mapping[str, Any]) -> None:
    """Check the image sizes in an image processor's configuration.

    Args:
        settings: As `image_processor.to_dict()` gives it.

    Raises:
        ValueError: If a side is no number of pixels from 1 to `MAX_IMAGE_SIDE`.
    """
    for name in SIZES:
        for side in _sides(settings.get(name)):
            if not isinstance(side, int | float) or isinstance(side, bool) or not 1 <= side <= MAX_IMAGE_SIDE:
                raise ValueError(
                    f"`{name}` of the image processor must lie in 1 to {MAX_IMAGE_SIDE} pixels, got {side!r}"
                )


def check_image_patches(image_seq_length: Any) -> None:
    """Check the number of patches of an image.

    Raises:
        ValueError: If it is no whole number from 1 to `MAX_IMAGE_PATCHES`.
    """
    if not isinstance(image_seq_length, int) or not 1 <= image_seq_length <= MAX_IMAGE_PATCHES:
        raise ValueError(f"`image_seq_length` must lie in 1 to {MAX_IMAGE_PATCHES}, got {image_seq_length!r}")


def _sides(size: Any) -> Iterator[Any]:
    if isinstance(size, Mapping):
        yield from (side for side in size.values() if side is not None)
    elif isinstance(size, list | tuple):
        yield from size
    elif size is not None:
        yield size
