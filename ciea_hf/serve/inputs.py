"""Checking and decoding of inputs before they are queued, so that an invalid input fails its own request alone."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ciea_hf.data.images import open_upload
from ciea_hf.modeling.images_ciea import load_image
from ciea_hf.serve.errors import InvalidInputError, RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from ciea_hf.serve.options import ServeOptions

DATA_URI = re.compile(r"data:image/[\w.+*-]+;base64,", re.ASCII)
IMAGE_SCHEMA = {"type": "string", "description": "image as a data URI or in base64; URLs are not fetched"}
INPUT_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {
                "text": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "image": {"anyOf": [IMAGE_SCHEMA, {"type": "null"}]},
            },
            "additionalProperties": False,
            "minProperties": 1,
        },
    ]
}


@dataclass(frozen=True)
class RawInput:
    """An input as it was sent.

    Attributes:
        text: Text or caption, or `None`.
        image: Image as a data URI or in base64, or `None`.
        param: Field of the request, such as `"input[3]"`.
        position: Position in its list, from 0.
    """

    text: str | None
    image: str | None
    param: str
    position: int


@dataclass(frozen=True)
class OpenedImage:
    """An image whose header has been read: its size and format are known, its pixels not decoded."""

    image: Image.Image
    source: RawInput

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.image.width * self.image.height


def parse_input(value: Any, param: str, position: int) -> RawInput:
    """Parse a text or an object with `text`, `image` or both.

    Args:
        value: Part of the request.
        param: Its field.
        position: Its position in its list.

    Raises:
        InvalidInputError: If it is neither, or empty.
    """
    if isinstance(value, str):
        return checked(RawInput(value, None, param, position))
    if _are_token_ids(value):
        raise InvalidInputError("token ids are not supported; send the text instead", position, param)
    if not isinstance(value, dict):
        raise InvalidInputError(
            f"must be a string, or an object with text and image; got {_name(value)}", position, param
        )
    unknown = sorted(value.keys() - {"text", "image"})
    if unknown:
        raise InvalidInputError(f"valid keys are text and image; got {unknown[0]!r}", position, param)
    for name, part in value.items():
        if part is not None and not isinstance(part, str):
            raise InvalidInputError(f"{name} must be a string or null; got {_name(part)}", position, param)
    return checked(RawInput(value.get("text"), value.get("image"), param, position))


def parse_inputs(value: Any, param: str) -> list[RawInput]:
    """Parse one input or a list of inputs.

    Raises:
        InvalidInputError: If one is invalid; the error names its position.
        RequestError: If the list is empty.
    """
    if not isinstance(value, list):
        return [parse_input(value, param, 0)]
    if not value:
        raise RequestError(400, f"{param}: the list is empty", param)
    if _are_token_ids(value):
        raise RequestError(400, f"{param}: token ids are not supported; send the text instead", param)
    return [parse_input(item, f"{param}[{position}]", position) for position, item in enumerate(value)]


def checked(item: RawInput) -> RawInput:
    """Return an input whose text has been checked; a blank caption next to an image counts as no caption.

    Raises:
        InvalidInputError: If it is empty, or its text contains half of a surrogate pair.
    """
    text = item.text if item.text is not None and item.text.strip() else None
    if text is None and item.image is None:
        message = "needs a text or an image; got neither" if item.text is None else "the text is empty"
        raise InvalidInputError(message, item.position, item.param)
    if text is not None:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"character {error.start} of the text is half of a surrogate pair"
            raise InvalidInputError(message, item.position, item.param) from None
    return RawInput(text, item.image, item.param, item.position)


def open_image(item: RawInput, options: ServeOptions) -> OpenedImage:
    """Read an image's header and check its size.

    Raises:
        InvalidInputError: If it is a URL, is not base64 of an image in a supported format, or is too large.
    """
    content = _image_bytes(item, options)
    try:
        image = open_upload(content, options.max_image_pixels)
    except ValueError as error:
        raise InvalidInputError(str(error), item.position, item.param) from error
    return OpenedImage(image, item)


def decode_image(opened: OpenedImage) -> Image.Image:
    """Decode an image to RGB, as the model does.

    Raises:
        InvalidInputError: If its pixels cannot be decoded.
    """
    try:
        return load_image(opened.image)
    except Exception as error:
        source = opened.source
        reason = str(error).split(" object at ")[0]
        raise InvalidInputError(f"the image cannot be decoded: {reason}", source.position, source.param) from error


def check_number(items: Sequence[Any], param: str, options: ServeOptions) -> None:
    """Check the number of inputs of a request.

    Raises:
        RequestError: If there are too many.
    """
    if len(items) > options.max_inputs:
        raise RequestError(400, f"{param}: at most {options.max_inputs} inputs per request; got {len(items)}", param)


def _image_bytes(item: RawInput, options: ServeOptions) -> bytes:
    text = item.image or ""
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        message = "the image is a URL, and URLs are not fetched; send the image as a data URI"
        raise InvalidInputError(message, item.position, item.param)
    prefix = DATA_URI.match(text)
    if prefix is None and text.startswith("data:"):
        message = "the image must be a data URI 'data:image/...;base64,...'"
        raise InvalidInputError(message, item.position, item.param)
    start = prefix.end() if prefix else 0
    if (len(text) - start) * 3 // 4 > options.max_image_bytes:
        message = f"the image is larger than {options.max_image_bytes} bytes"
        raise InvalidInputError(message, item.position, item.param)
    try:
        content = base64.b64decode(text[start:], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(f"the image is not valid base64: {error}", item.position, item.param) from None
    if not content:
        raise InvalidInputError("the image is empty", item.position, item.param)
    return content


def _are_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) is int


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "a string")
