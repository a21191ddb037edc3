"""Parsing and decoding of model inputs: texts, images and images with captions."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")
MAX_ELONGATION = 64
# Exceptions that Pillow raises for corrupt files.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, Image.DecompressionBombError)

ImageInput = Any  # a PIL image, a path, encoded bytes, an array (3, H, W) or (H, W, 3), or the encoded form of datasets


@dataclass(frozen=True)
class ModelInput:
    """One input: a text, an image, or an image with a caption.

    Args:
        text: Text or caption; `None` for an image alone.
        image: Image, not decoded yet if it is a path; `None` for a text.
    """

    text: str | None
    image: ImageInput | None

    @property
    def kind(self) -> str:
        """Kind of the input: `"text"`, `"image"` or `"image,text"`."""
        return input_kind(self.text, self.image)


def input_kind(text: str | None, image: Any) -> str:
    """Return the kind of an input or document: `"text"`, `"image"` or `"image,text"`.

    Args:
        text: Text or caption, or `None`.
        image: Image in any form, or `None`.

    Raises:
        ValueError: If both are `None`.
    """
    if text is None and image is None:
        raise ValueError("an input needs a text or an image; got neither")
    if image is None:
        return "text"
    return "image" if text is None else "image,text"


def is_batch(inputs: Any) -> bool:
    """Return whether the inputs are a batch: a list, a tuple, a column of a data set, or an array of objects."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.dtype.kind in "UO"
    return isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes)


def parse_input(value: Any) -> ModelInput:
    """Parse one input.

    Args:
        value: A text; a PIL image; a path to an image (a `Path`, or a `str` that names an existing image file, as in
            sentence-transformers); an array; or a mapping with `"text"`, `"image"` or both, either of which may be
            `None`.

    Returns:
        The parsed input. In a mapping, an empty caption next to an image counts as no caption.

    Raises:
        TypeError: If the type is not one of these.
        ValueError: If the input is empty, a key is unknown, there are several images, or a URL is given.
        FileNotFoundError: If a path does not name a file.
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
        "an input must be a str, a PIL image, an image path, or a dict with 'text' and 'image'; "
        f"got {type(value).__name__}"
    )


def parse_inputs(values: Iterable[Any]) -> list[ModelInput]:
    """Parse many inputs; an error names the position of the input that caused it."""
    inputs = []
    for position, value in enumerate(values):
        try:
            inputs.append(parse_input(value))
        except (TypeError, ValueError, FileNotFoundError) as error:
            raise type(error)(f"input {position}: {error}") from None
    return inputs


def input_from_messages(messages: Iterable[dict[str, Any]], position: int) -> ModelInput:
    """Join the texts and the image of one conversation into one input; see `CIEAProcessor.apply_chat_template`."""
    texts: list[str] = []
    prompts: list[str] = []
    images: list[Any] = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            kind = part.get("type")
            if kind == "text":
                (prompts if message.get("role") == "system" else texts).append(part["text"] or "")
            elif kind == "image":
                images.append(part["image"])
            else:
                raise ValueError(f"input {position}: content must be of type 'text' or 'image'; got {kind!r}")
    images = [image for image in images if image is not None]
    if len(images) > 1:
        raise ValueError(f"input {position}: one image per input; got {len(images)}")
    text = "".join(texts)
    if not text.strip() and images:
        return ModelInput(None, images[0])
    return ModelInput("".join(prompts) + text, images[0] if images else None)


def load_image(image: ImageInput) -> Image.Image:
    """Decode an image to RGB, rotated according to its EXIF orientation, with transparency composited onto white.

    Images with an aspect ratio above 64 are cropped to the centre. Most image processors scale the shorter side to the
    tower's size before they crop, so a line of 1 x 10,000 pixels would otherwise take gigabytes.

    Args:
        image: A PIL image, a path, encoded bytes, a `data:image/` URI, an array, or the `{"bytes": ..., "path": ...}`
            of a data set.

    Returns:
        The image in mode RGB.

    Raises:
        ValueError: If the image is corrupt, exceeds Pillow's `Image.MAX_IMAGE_PIXELS`, or is a URL; the message names
            the file.
        TypeError: If the type is unsupported.
        FileNotFoundError: If a path does not name a file.
    """
    image = _check_image(image)
    if isinstance(image, torch.Tensor):
        image = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _limit_aspect_ratio(_image_from_array(image))
    name = f"image {str(image)[:200]!r}" if isinstance(image, str | os.PathLike) else "image"
    try:
        opened = image if isinstance(image, Image.Image) else Image.open(_source(image))
        _check_size(opened)
        return _to_rgb(_limit_aspect_ratio(ImageOps.exif_transpose(opened)))
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def _parse_mapping(value: Mapping[Any, Any]) -> ModelInput:
    unknown = sorted(str(key) for key in value if key not in ("text", "image"))
    if unknown:
        raise ValueError(f"unknown key(s) {', '.join(unknown)}; valid keys are 'text' and 'image'")
    text, image = value.get("text"), value.get("image")
    if text is not None and not isinstance(text, str):
        raise TypeError(f"'text' must be a str or None; got {type(text).__name__}")
    if text is not None and not text.strip():
        text = None
    if text is None and image is None:
        raise ValueError("an input needs a text or an image; got neither")
    return ModelInput(text, None if image is None else _check_image(image))


def _check_image(image: Any) -> ImageInput:
    """Check an image's type, and that a path names a file, without decoding anything."""
    if isinstance(image, Mapping) and image.keys() == {"bytes", "path"}:  # the encoded form of datasets
        image = image["path"] if image["bytes"] is None else image["bytes"]
    if isinstance(image, list | tuple):
        raise ValueError(f"one image per input; got {len(image)}")  # noqa: TRY004 (the number is wrong, not the type)
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise ValueError(f"{image!r} is a URL, and URLs are not fetched: download the image first")
    if isinstance(image, str | os.PathLike) and not str(image).startswith("data:image/"):
        if not Path(image).is_file():
            raise FileNotFoundError(f"image file {str(image)!r} not found")
        return image
    if not isinstance(image, str | bytes | Image.Image | np.ndarray | torch.Tensor):
        raise TypeError(f"an image must be a PIL image, a path, bytes or an array; got {type(image).__name__}")
    return image


def names_image(text: str) -> bool:
    """Return whether a string denotes an image, by the same rule as sentence-transformers."""
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
    """Reject images without pixels, and those above Pillow's limit against decompression bombs, before decoding."""
    limit = Image.MAX_IMAGE_PIXELS
    if image.width * image.height == 0 or (limit is not None and image.width * image.height > limit):
        raise ValueError(f"{image.width} x {image.height} pixels; `PIL.Image.MAX_IMAGE_PIXELS` is {limit}")


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
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
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
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[-1]):
        raise ValueError(f"an image array must be of shape (3, height, width) or (height, width, 3); got {array.shape}")
    if array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):  # written this way, the check also rejects NaN
            raise ValueError("an image array must be uint8 or float in [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
