"""Random parts of images and texts, as training queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from PIL import Image

MIN_SHARE = 0.25  # of the image's area
MAX_ASPECT = 4 / 3  # of the part relative to the image


def random_part(image: Image.Image, rng: random.Random) -> Image.Image:
    """Crop a random rectangle of 25 to 100 % of an image's area, with nearly the same aspect ratio.

    Args:
        image: Image.
        rng: Source of the random choices.

    Returns:
        The part, at least one pixel wide and high.
    """
    share = rng.uniform(MIN_SHARE, 1.0)
    aspect = MAX_ASPECT ** rng.uniform(-1.0, 1.0)
    width = max(1, round(image.width * min(1.0, (share * aspect) ** 0.5)))
    height = max(1, round(image.height * min(1.0, (share / aspect) ** 0.5)))
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def random_words(text: str, rng: random.Random, shuffle: bool = False) -> str:
    """Keep each word of a text with probability 1/2, and at least one word.

    Args:
        text: Text with at least one word.
        rng: Source of the random choices.
        shuffle: Whether to change the order of the words.

    Returns:
        The words.
    """
    words = text.split()
    kept = [word for word in words if rng.random() < 0.5] or [rng.choice(words)]
    if shuffle:
        rng.shuffle(kept)
    return " ".join(kept)
