"""Images as inputs: which values denote an image, and how it is opened, checked and decoded."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors_ciea import describe, shorten

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")  # those of sentence-transformers
OTHER_SUFFIXES = (".tif", ".avif", ".ico", ".heic", ".heif", ".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".tga", ".svg")
MAX_ELONGATION = 64
ORIENTATION = 0x0112  # EXIF tag
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

ImageInput = Any  # see `load_image`


@dataclass(frozen=True)
class PreprocessedImage:
    """An image as the vision tower's input; see `CIEAProcessor.preprocess_image`.

    Args:
        pixel_values: Pixel values, (3, height, width).
    """

    pixel_values: torch.Tensor


def load_image(image: ImageInput) -> Image.Image:
    """Decode an image to RGB, rotated according to its orientation tag, with transparency composited onto white.

    This is the only function that opens an image. It opens regular files only, never fetches anything, checks the size
    before decoding, and closes what it has opened. Images with an aspect ratio above 64 are cropped to the centre. Most
    image processors scale the shorter side to the tower's size before they crop, so a line of 1 x 10,000 pixels would
    otherwise take gigabytes.

    Args:
        image: A PIL image, a path, encoded bytes, a `data:image/` URI, an array (height, width), (height, width, 1, 3
            or 4) or (1, 3 or 4, height, width), or the `{"bytes": ..., "path": ...}` of a data set.

    Returns:
        The image in mode RGB, without metadata.

    Raises:
        ValueError: If the image is corrupt, exceeds Pillow's `Image.MAX_IMAGE_PIXELS`, or is a URL; the message names
            the file.
        TypeError: If the type is unsupported.
        FileNotFoundError: If a path does not name a regular file.
    """
    image = check_image(image)
    if isinstance(image, PreprocessedImage):
        raise TypeError("a preprocessed image has no pixels to decode")
    name = f"image {shorten(str(image))}" if isinstance(image, str | os.PathLike) else "image"
    try:
        if isinstance(image, torch.Tensor):
            image = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
        if isinstance(image, np.ndarray):
            image = _image_from_array(image)
        if isinstance(image, Image.Image):
            return _decode(image, owned=False)
        with Image.open(_source(image)) as opened:
            return _decode(opened, owned=True)
    except Exception as error:  # Pillow's decoders raise errors of any class for corrupt files
        reason = describe(error)
        if isinstance(image, Image.Image) and _is_closed(image):
            reason = "its file was closed before its pixels were read"
        raise ValueError(f"{name} cannot be decoded: {reason}") from error


def check_image(image: Any) -> ImageInput:
    """Check an image's type, and that a path names a regular file, without decoding anything.

    Returns:
        The image; for the encoded form of a data set, its bytes or its path.

    Raises:
        ValueError: If there are several images, or a URL is given.
        TypeError: If the type is unsupported.
        FileNotFoundError: If a path does not name a regular file.
    """
    if isinstance(image, dict) and image.keys() == {"bytes", "path"}:  # the encoded form of datasets
        image = image["path"] if image["bytes"] is None else image["bytes"]
    if isinstance(image, list | tuple):
        raise ValueError(f"one image per input; got {len(image)}")  # noqa: TRY004 (the number is wrong, not the type)
    if isinstance(image, str) and image.lower().startswith(("http://", "https://", "ftp://", "s3://", "gs://")):
        raise ValueError(f"{shorten(image)} is a URL, and URLs are not fetched: download the image first")
    if isinstance(image, str | os.PathLike) and not str(image).startswith("data:image/"):
        if not is_regular_file(image):
            raise FileNotFoundError(f"image file {shorten(str(image))} not found, or not a regular file")
        return image
    if not isinstance(image, str | bytes | Image.Image | np.ndarray | torch.Tensor | PreprocessedImage):
        raise TypeError(f"an image must be a PIL image, a path, bytes or an array; got {type(image).__name__}")
    return image


def is_regular_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names a regular file; False for names that no file can have, or that cannot be read."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, with a null character, or in a folder that may not be read
        return False


def names_image(text: str) -> bool:
    """Return whether a string denotes an image, by the same rule as sentence-transformers."""
    if text.startswith("data:image/"):
        return True
    if not text.lower().endswith(IMAGE_SUFFIXES):
        return False
    if text.startswith(("http://", "https://")):
        return " " not in text
    return is_regular_file(text)


def names_other_file(text: str) -> bool:
    """Return whether a string names an existing image file with a suffix that sentence-transformers does not know."""
    return text.lower().endswith(OTHER_SUFFIXES) and is_regular_file(text)


def _source(image: Any) -> Any:
    if isinstance(image, bytes):
        return BytesIO(image)
    if isinstance(image, str) and image.startswith("data:image/"):
        return BytesIO(base64.b64decode(image.partition(",")[2]))
    return image


def _decode(image: Image.Image, owned: bool) -> Image.Image:
    """Decode an image; `owned` says that this module has opened it, so that its pixels may be used without a copy."""
    limit = Image.MAX_IMAGE_PIXELS
    if image.width * image.height == 0 or (limit is not None and image.width * image.height > limit):
        raise ValueError(f"{image.width} x {image.height} pixels; `PIL.Image.MAX_IMAGE_PIXELS` is {limit}")
    image.load()
    method = TRANSPOSITIONS.get(_orientation(image))
    upright = _limit_aspect_ratio(image if method is None else image.transpose(method))
    if owned and upright.mode == "RGB" and "transparency" not in upright.info:
        decoded = upright._new(upright.im)  # shares the pixels with an object that nobody else has: copies are slow
    else:
        decoded = _to_rgb(upright)  # a copy, also of an image in mode RGB
    decoded.info = {}  # an orientation that is left here would rotate the image again
    return decoded


def _orientation(image: Image.Image) -> Any:
    """Return the orientation tag; 1 if the metadata cannot be read, whose other tags do not matter."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's parser raises errors of any class for damaged metadata
        return 1
    return orientation if isinstance(orientation, int) else 1


def _is_closed(image: Image.Image) -> bool:
    file = getattr(image, "fp", None)
    return getattr(image, "_im", True) is None and (file is None or getattr(file, "closed", False))


def _limit_aspect_ratio(image: Image.Image) -> Image.Image:
    """Crop a very elongated image to its centre."""
    longest = MAX_ELONGATION * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # 16 or 32 bits per pixel, which Pillow would clip
        return Image.fromarray(_grey_levels(image)).convert("RGB")
    if image.mode == "La":  # premultiplied, which converts only to LA
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_levels(image: Image.Image) -> np.ndarray[Any, Any]:
    """Convert an image of integers of up to 16 bits, or of floats in [0, 1] or beyond, to grey levels 0 to 255."""
    values: np.ndarray[Any, Any] = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values)
        values = (values * 255 if values.min() >= 0 and values.max() <= 1 else values).round()
    elif image.mode != "I" or values.max() > 255:  # mode I may hold 8-bit values, although Pillow reads those as L
        values = values.clip(0, 65535) // 257
    levels: np.ndarray[Any, Any] = values.clip(0, 255).astype(np.uint8)
    return levels


def _image_from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """Convert an array to an image; grey levels and an alpha channel are read as Pillow would write them."""
    if array.dtype.kind not in "buif":
        raise ValueError(f"an image array must be uint8 or float in [0, 1]; got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    channels = next((n for n in (3, 1, 4) if array.ndim == 3 and n in (array.shape[0], array.shape[-1])), None)
    if channels is None:
        raise ValueError(
            "an image array must be of shape (height, width), (channels, height, width) or (height, width, channels) "
            f"with 1, 3 or 4 channels; got {array.shape}"
        )
    if array.shape[-1] != channels:
        array = array.transpose(1, 2, 0)
    if array.size == 0:
        raise ValueError(f"{array.shape[1]} x {array.shape[0]} pixels")
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):  # written this way, the check also rejects NaN
            raise ValueError("an image array must be uint8 or float in [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if channels == 1 else array))
