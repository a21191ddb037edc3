"""Inputs of the processor: texts and images side by side, and images in small groups."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .errors_ciea import place
from .images_ciea import PreprocessedImage, load_image
from .inputs_ciea import ModelInput, check_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PIXELS_AT_ONCE = 2_000_000  # pixels of decoded images that are held at full size
IMAGE_TOKENS = ("<im_patch>", "<im_start>", "<im_end>")  # placeholder, start mark, end mark


def remove_missing_images(messages: Sequence[Any]) -> None:
    """Remove parts of messages whose image is `None`, in place: sentence-transformers counts the images afterwards."""
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content[:] = [part for part in content if not _is_missing_image(part)]


def _is_missing_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image" and "image" in part and part["image"] is None


def clean_text(text: str | None, has_image: bool) -> tuple[str | None, bool]:
    """Remove the image tokens, which are reserved for the model, from a text; a blank caption counts as none."""
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str or None; got {type(text).__name__}")
        text = re.sub("|".join(IMAGE_TOKENS), " ", check_text(text))
    return (None if has_image and text is not None and not text.strip() else text), has_image


def pair_inputs(text: Any, images: Any) -> tuple[list[str | None], list[Any]]:
    """Return texts and images as lists of equal length, `None` where one is missing."""
    if text is None and images is None:
        raise ValueError("`text`, `images` or both are required; got neither")
    if text is not None and (isinstance(text, dict | bytes) or not isinstance(text, Iterable)):
        raise TypeError(f"`text` must be a str, or a list of str and None; got {type(text).__name__}")
    texts = [text] if isinstance(text, str) else text
    image_list = images if images is None or isinstance(images, list | tuple) else [images]
    if image_list is not None and all(isinstance(image, list | tuple) and len(image) <= 1 for image in image_list):
        image_list = [image[0] if image else None for image in image_list]  # one list per input, as in transformers
    texts = [None] * len(image_list or []) if texts is None else list(texts)
    image_list = [None] * len(texts) if image_list is None else list(image_list)
    if len(texts) != len(image_list):
        raise ValueError(
            f"`text` has {len(texts)} inputs and `images` {len(image_list)}; both need one entry per input, None where "
            "an input has no text or no image"
        )
    return texts, image_list


def load_at(image: Any, position: int) -> Any:
    """Decode an image; an error names the position of the input. A preprocessed image stays as it is."""
    with place(f"input {position}"):
        return image if isinstance(image, PreprocessedImage) else load_image(image)


def image_groups(images: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield images in groups of one type and of at most `PIXELS_AT_ONCE` pixels; a larger image is a group."""
    group: list[Any] = []
    pixels = 0
    for image in images:
        preprocessed = isinstance(image, PreprocessedImage)
        size = 0 if preprocessed else image.width * image.height
        if group and (pixels + size > PIXELS_AT_ONCE or isinstance(group[0], PreprocessedImage) != preprocessed):
            yield group
            group, pixels = [], 0
        group.append(image)
        pixels += size
        if pixels >= PIXELS_AT_ONCE:  # before the next image is decoded
            yield group
            group, pixels = [], 0
    if group:
        yield group


def join_blocks(blocks: list[Any]) -> Any:
    """Join the pixel values of several groups: tensors, arrays or lists of one array per image."""
    if len(blocks) == 1:
        return blocks[0]
    if isinstance(blocks[0], torch.Tensor):
        return torch.cat(blocks)
    return np.concatenate(blocks) if isinstance(blocks[0], np.ndarray) else [row for block in blocks for row in block]


def batches_of_one_kind(inputs: list[ModelInput], batch_size: int) -> Iterator[list[int]]:
    """Yield the positions of inputs that share a batch: one kind, longest texts first."""
    for kind in ("image,text", "image", "text"):
        positions = [position for position, item in enumerate(inputs) if item.kind == kind]
        positions.sort(key=lambda position: -len(inputs[position].text or ""))
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]


class LoadedLimit(int):
    """The `model_max_length` that a tokenizer was loaded with, as opposed to an equal one that is assigned later."""


def cut_tokens(encoded: list[list[int]], room: int, tokenizer: Any) -> list[list[int]]:
    """Cut token ids to a length, keeping the special tokens that the tokenizer appends to every text."""
    if max(map(len, encoded)) <= room:
        return encoded
    mask: list[int] = tokenizer("a", return_special_tokens_mask=True, verbose=False)["special_tokens_mask"]
    end = mask[::-1].index(0)
    return [ids if len(ids) <= room else ids[: room - end] + ids[len(ids) - end :] for ids in encoded]
