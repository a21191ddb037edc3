"""Parsing of model inputs: texts, images and images with captions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from .errors_ciea import place, shorten
from .images_ciea import ImageInput, PreprocessedImage, check_image, names_image, names_other_file

logger = logging.get_logger(__name__)


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
            return ModelInput(None, check_image(value))
        if not value.strip():
            raise ValueError("the text is empty")
        if names_other_file(value):
            logger.warning("%r is embedded as a text; to embed the image file of this name, pass a `Path`", value)
        return ModelInput(check_text(value), None)
    if isinstance(value, os.PathLike | Image.Image | np.ndarray | torch.Tensor | PreprocessedImage):
        return ModelInput(None, check_image(value))
    raise TypeError(
        "an input must be a str, a PIL image, an image path, or a dict with 'text' and 'image'; "
        f"got {type(value).__name__}"
    )


def parse_inputs(values: Iterable[Any]) -> list[ModelInput]:
    """Parse many inputs; an error names the position of the input that caused it."""
    inputs = []
    for position, value in enumerate(values):
        with place(f"input {position}"):
            inputs.append(parse_input(value))
    return inputs


def check_text(text: str) -> str:
    """Check that a text can be encoded.

    Raises:
        ValueError: If it contains half of a surrogate pair, as a cut emoji or bytes that are not UTF-8 leave behind.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is half of a surrogate pair, {text[error.start]!r}: the text was cut "
            "within a character, or read from bytes that are not UTF-8"
        ) from None
    return text


def input_from_messages(messages: Iterable[dict[str, Any]]) -> ModelInput:
    """Join the texts and the image of one conversation into one input; see `CIEAProcessor.apply_chat_template`.

    Raises:
        TypeError: If a message is not a dict with a content.
        ValueError: If a part is of an unknown type, or there are several images.
    """
    texts: list[str] = []
    prompts: list[str] = []
    images: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str | list | tuple):
            raise TypeError(f"a message must be a dict whose 'content' is a str or a list; got {shorten(message)}")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "text":
                (prompts if message.get("role") == "system" else texts).append(part.get("text") or "")
            elif kind == "image":
                images.append(_image_of_part(part))
            else:
                raise ValueError(f"content must be of type 'text' or 'image'; got {shorten(part)}")
    images = [image for image in images if image is not None]
    if len(images) > 1:
        raise ValueError(f"one image per input; got {len(images)}")
    text = "".join(texts)
    if not text.strip() and images:
        return ModelInput(None, images[0])
    return ModelInput("".join(prompts) + text, images[0] if images else None)


def _image_of_part(part: Mapping[str, Any]) -> Any:
    """Return the image of a message's part, which transformers' chat templates name in several ways."""
    if part.get("base64") is not None:
        return f"data:image/*;base64,{part['base64']}"
    keys = [key for key in ("image", "path", "url") if key in part]
    if not keys:
        raise ValueError(f"a part of type 'image' needs 'image', 'path', 'url' or 'base64'; got {', '.join(part)}")
    return part[keys[0]]


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
    if text is not None:
        check_text(text)
    return ModelInput(text, None if image is None else check_image(image))
