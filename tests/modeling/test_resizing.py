"""Images that are resized early have the same pixel values, and are not held at full size."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil

from ciea_hf.modeling.images_ciea import load_image
from ciea_hf.modeling.resizing_ciea import resize_early
from tests.support.helpers import tiny_processor

if TYPE_CHECKING:
    from pathlib import Path

SIZES = ((31, 40), (97, 33), (450, 301), (600, 7), (32, 32))


def photograph(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def resized_sizes(image_processor: Any) -> list[tuple[int, int]]:
    return [image.size for image in resize_early(map(photograph, SIZES), image_processor)]


@pytest.mark.parametrize(
    "image_processor",
    [
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        CLIPImageProcessorPil(size={"shortest_edge": 37}, crop_size={"height": 32, "width": 32}, resample=2),
        ViTImageProcessorPil(size={"height": 32, "width": 28}),
        SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=Image.Resampling.LANCZOS),
    ],
)
def test_pixel_values_are_bit_equal(image_processor: Any) -> None:
    images = [photograph(size) for size in SIZES]
    expected = image_processor(images, return_tensors="pt")["pixel_values"]
    early = list(resize_early(images, image_processor))
    assert sum(image.size != full.size for image, full in zip(early, images, strict=True)) >= len(SIZES) - 1
    torch.testing.assert_close(image_processor(early, return_tensors="pt")["pixel_values"], expected, atol=0, rtol=0)
    processor = tiny_processor()
    processor.image_processor = image_processor
    torch.testing.assert_close(processor.pixel_values(images), expected, atol=0, rtol=0)


class OtherResize(CLIPImageProcessorPil):
    def resize(self, image: Any, size: Any, resample: Any = None, reducing_gap: Any = None, **options: Any) -> Any:
        return super().resize(image, size, resample, reducing_gap, **options)[..., ::-1]


@pytest.mark.parametrize(
    "image_processor",
    [
        OtherResize(size={"shortest_edge": 32}),
        CLIPImageProcessorPil(do_resize=False),
        CLIPImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}),
        lambda images: images,
    ],
)
def test_processors_that_resize_otherwise_get_the_whole_image(image_processor: Any) -> None:
    assert resized_sizes(image_processor) == list(SIZES)


def test_arguments_of_the_call_decide_about_the_size() -> None:
    processor = tiny_processor()
    size: dict[str, Any] = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    image = photograph((450, 301))
    expected = processor.image_processor([image], return_tensors="pt", **size)["pixel_values"]
    torch.testing.assert_close(processor(images=[image], **size)["pixel_values"], expected, atol=0, rtol=0)


def test_a_file_is_decoded_without_a_copy_and_an_image_with_one(tmp_path: Path) -> None:
    image = photograph((40, 30))
    loaded = load_image(image)
    loaded.paste((0, 0, 0), (0, 0, 40, 30))
    assert np.asarray(image).any()
    file = tmp_path / "photo.png"
    image.save(file)
    decoded = load_image(file)
    assert type(decoded) is Image.Image
    assert decoded.info == {}
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image))
    buffer = BytesIO()
    decoded.save(buffer, "PNG")  # the pixels outlive the file that they were read from
    np.testing.assert_array_equal(np.asarray(load_image(buffer.getvalue())), np.asarray(image))
