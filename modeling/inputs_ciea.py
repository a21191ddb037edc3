"""What users give to be embedded: texts, images and images with captions, checked and brought into one form."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")
MAX_ELONGATION = 64
# what Pillow raises for broken files
DECODING_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, Image.DecompressionBombError)

ImageInput = Any  # a PIL image, a path, encoded bytes, an array (3, H, W) or (H, W, 3), or datasets' encoded form


@dataclass(frozen=True)
class ModelInput:
    """One input: a text, an image, or an image with a caption.

    Args:
        text: The text or the caption, `None` for an image alone.
        image: The image, not yet decoded where it is a path, `None` for a text.
    """

    text: str | None
    image: ImageInput | None

    @property
    def kind(self) -> str:
        """`"text"`, `"image"` or `"image,text"`."""
        if self.image is None:
            return "text"
        return "image" if self.text is None else "image,text"


def parse_input(value: Any) -> ModelInput:
    """Bring one input into the common form.

    Args:
        value: A text; a PIL image; a path to an image (a `Path`, or a `str` that names an existing image file, as in
            sentence-transformers); an array; or a mapping with `"text"`, `"image"` or both, either side `None`.

    Returns:
        The document. A mapping's empty caption beside an image counts as none.

    Raises:
        TypeError: If the type is not one of these.
        ValueError: If there is nothing to embed, a key is unknown, there are several images, or a URL is given.
        FileNotFoundError: If a path names no file.
    """
    if isinstance(value, Mapping):
        return _parse_mapping(value)
    if isinstance(value, str):
        if names_image(value):
            return ModelInput(None, _check_image(value))
        if not value.strip():
            raise ValueError("the text is empty")
        return ModelInput(value, None)
    if isinstance(value, os.PathLike | Image.Image | np.ndarray | torch.Tensor):
        return ModelInput(None, _check_image(value))
    raise TypeError(
        "an input must be a str, a PIL image, a path to an image, or a dict with 'text' and 'image'; "
        f"got {type(value).__name__}"
    )


def parse_inputs(values: Iterable[Any]) -> list[ModelInput]:
    """Bring many inputs into the common form; an error names the position of the input that caused it."""
    documents = []
    for position, value in enumerate(values):
        try:
            documents.append(parse_input(value))
        except (TypeError, ValueError, FileNotFoundError) as error:
            raise type(error)(f"input {position}: {error}") from None
    return documents


def load_image(image: ImageInput) -> Image.Image:
    """Decode an image to RGB, turned as its EXIF orientation says, transparency laid on white.

    Of an image more than 64 times as long as wide the middle is taken: scaled to the tower's size by its shorter side,
    as most image processors do before they take the middle, a line of 1 x 10,000 pixels would fill gigabytes.

    Args:
        image: A PIL image, a path, encoded bytes, a `data:image/` URI, an array, or the `{"bytes": ..., "path": ...}`
            of a data set.

    Returns:
        The image, mode RGB.

    Raises:
        ValueError: If the image is broken, has more pixels than Pillow's `Image.MAX_IMAGE_PIXELS`, or is given as a
            URL; the message names the file.
        TypeError: If it is of another type.
        FileNotFoundError: If a path names no file.
    """
    image = _check_image(image)
    if isinstance(image, torch.Tensor):
        image = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _without_far_ends(_image_of_array(image))
    name = f"image {str(image)[:200]!r}" if isinstance(image, str | os.PathLike) else "image"
    try:
        opened = image if isinstance(image, Image.Image) else Image.open(_source(image))
        _check_size(opened)
        return _to_rgb(_without_far_ends(ImageOps.exif_transpose(opened)))
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def _parse_mapping(value: Mapping[Any, Any]) -> ModelInput:
    unknown = sorted(str(key) for key in value if key not in ("text", "image"))
    if unknown:
        raise ValueError(f"unknown key(s) {', '.join(unknown)}; a document has 'text' and 'image'")
    text, image = value.get("text"), value.get("image")
    if text is not None and not isinstance(text, str):
        raise TypeError(f"'text' must be a str or None, got {type(text).__name__}")
    if text is not None and not text.strip():
        text = None
    if text is None and image is None:
        raise ValueError("there is neither a text nor an image")
    return ModelInput(text, None if image is None else _check_image(image))


def _check_image(image: Any) -> ImageInput:
    """Check an image's type, and a path's file, without decoding anything."""
    if isinstance(image, Mapping) and image.keys() == {"bytes", "path"}:  # what datasets holds before it decodes
        image = image["path"] if image["bytes"] is None else image["bytes"]
    if isinstance(image, list | tuple):
        raise ValueError(f"one image per input, got {len(image)}")  # noqa: TRY004 (a matter of number)
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise ValueError(f"{image!r} is a URL, and nothing is fetched here: download the image first")
    if isinstance(image, str | os.PathLike) and not str(image).startswith("data:image/"):
        if not Path(image).is_file():
            raise FileNotFoundError(f"there is no image file {str(image)!r}")
        return image
    if not isinstance(image, str | bytes | Image.Image | np.ndarray | torch.Tensor):
        raise TypeError(f"an image must be a PIL image, a path, bytes or an array, got {type(image).__name__}")
    return image


def names_image(text: str) -> bool:
    """Whether sentence-transformers, too, takes the string for an image."""
    if text.startswith("data:image/"):
        return True
    if not text.lower().endswith(IMAGE_SUFFIXES):
        return False
    if text.startswith(("http://", "https://")):
        return " " not in text
    return len(text) < 4096 and "\n" not in text and Path(text).is_file()


def _source(image: Any) -> Any:
    if isinstance(image, bytes):
        return BytesIO(image)
    if isinstance(image, str) and image.startswith("data:image/"):
        return BytesIO(base64.b64decode(image.partition(",")[2]))
    return image


def _check_size(image: Image.Image) -> None:
    """Refuse images of no pixels, and of more than Pillow's limit against decompression bombs, before decoding."""
    limit = Image.MAX_IMAGE_PIXELS
    if image.width * image.height == 0 or (limit is not None and image.width * image.height > limit):
        raise ValueError(f"it has {image.width} x {image.height} pixels; `PIL.Image.MAX_IMAGE_PIXELS` is {limit}")


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of a very elongated image."""
    longest = MAX_ELONGATION * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # 16 or 32 bits per pixel, which Pillow would clip
        return Image.fromarray(_shades(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _shades(image: Image.Image) -> np.ndarray[Any, Any]:
    """Grey values 0 to 255 of an image of integers of up to 16 bits, or of floats, in [0, 1] or beyond."""
    values: np.ndarray[Any, Any] = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values)
        values = (values * 255 if values.min() >= 0 and values.max() <= 1 else values).round()
    elif image.mode != "I" or values.max() > 255:  # Pillow reads 8 bits as L, but others may hold them as I
        values = values.clip(0, 65535) // 257
    shades: np.ndarray[Any, Any] = values.clip(0, 255).astype(np.uint8)
    return shades


def _image_of_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[-1]):
        raise ValueError(f"an image array must be (3, height, width) or (height, width, 3), got {array.shape}")
    if array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):  # so written, NaN is refused, too
            raise ValueError("an image array must be uint8, or floats in [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
