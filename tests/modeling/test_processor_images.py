"""Images in every supported form, and images that cannot be read."""

from __future__ import annotations

import base64
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from ciea_hf.modeling import ModelInput, load_image, parse_input, parse_inputs
from tests.support.helpers import tiny_processor, toy_image

if TYPE_CHECKING:
    from pathlib import Path


def encoded(image: Image.Image, form: str = "PNG", **settings: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def pixels(image: Any) -> np.ndarray[Any, Any]:
    loaded = load_image(image)
    assert loaded.mode == "RGB"
    return np.asarray(loaded)


def test_the_same_image_in_every_container(tmp_path: Path) -> None:
    image = toy_image(1)
    array = np.asarray(image)
    path = tmp_path / "image.png"
    image.save(path)
    data = path.read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    floats = torch.tensor(array) / 255
    given = [image, path, str(path), data, uri, array, array.transpose(2, 0, 1), torch.tensor(array), floats]
    given += [floats.permute(2, 0, 1), floats.double().numpy()]
    given += [{"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, {"bytes": data, "path": "cat.png"}]
    for value in given:
        np.testing.assert_array_equal(pixels(value), array)
    batch = tiny_processor()(images=given)
    assert batch["pixel_values"].shape == (len(given), 3, 32, 32)
    assert (batch["pixel_values"] == batch["pixel_values"][0]).all()


def test_colours() -> None:
    grey = toy_image(2).convert("L")
    np.testing.assert_array_equal(pixels(grey), np.stack([np.asarray(grey)] * 3, axis=-1))
    palette = toy_image(2).convert("P")
    np.testing.assert_array_equal(pixels(palette), np.asarray(palette.convert("RGB")))
    ink = Image.new("CMYK", (4, 4), (255, 0, 0, 0))  # cyan
    np.testing.assert_array_equal(pixels(encoded(ink, "JPEG"))[0, 0], [0, 255, 255])
    black_or_white = Image.fromarray(np.eye(4, dtype=bool))
    np.testing.assert_array_equal(pixels(black_or_white)[..., 1], 255 * np.eye(4, dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    converted = image.convert(mode)
    if mode == "PA":  # which Pillow before 12 makes opaque
        converted = image.convert("RGB").convert("P")
        converted.putalpha(image.getchannel("A"))
    assert converted.mode == mode
    np.testing.assert_array_equal(pixels(converted)[0], [[255] * 3, [0] * 3])
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    np.testing.assert_array_equal(pixels(half)[0, 0], [127] * 3)


def test_a_transparent_colour_of_a_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 10, 10, 10, 200])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=0))[0], [[255] * 3, [10, 10, 200]])


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    shades = np.array([[0, 257, 1000, 40000, 65535]], dtype=np.uint16)
    for image in (Image.fromarray(shades), encoded(Image.fromarray(shades)), Image.fromarray(shades.astype(np.int32))):
        np.testing.assert_array_equal(pixels(image)[0, :, 0], [0, 1, 3, 155, 255])
    few = Image.fromarray(np.array([[0, 7, 255]], dtype=np.int32))
    np.testing.assert_array_equal(pixels(few)[0, :, 0], [0, 7, 255])


def test_images_are_rotated_by_their_orientation() -> None:
    """As transformers and datasets do it: a photo taken sideways is seen upright."""
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    turned = load_image(encoded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(turned)[..., 0], np.rot90(np.asarray(image), -1))
    np.testing.assert_array_equal(pixels(turned), np.asarray(turned))  # and only once


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (1, 50), (50, 1), (2, 3)])
def test_narrow_images_keep_their_axes(size: tuple[int, int]) -> None:
    processor = tiny_processor()
    image = toy_image(3, size).point(lambda value: 100 + value // 4)  # no overshoot is clipped
    upright = processor(images=[image])["pixel_values"]
    lying = processor(images=[image.transpose(Image.Transpose.TRANSPOSE)])["pixel_values"]
    torch.testing.assert_close(lying, upright.transpose(2, 3), atol=0.02, rtol=0.0)  # resizing rounds


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_broken_files(form: str, tmp_path: Path) -> None:
    data = encoded(toy_image(1), form)
    path = tmp_path / "broken.img"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"image '.*broken\.img' cannot be decoded: "):
        load_image(path)
    generator = np.random.default_rng(0)
    messages = []
    for _ in range(100):  # whatever is wrong with a file, the error is of one kind
        damaged = bytearray(data)
        for place in generator.integers(0, 60, 3):
            damaged[place] = generator.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_image(bytes(damaged))
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert all(message.startswith("image cannot be decoded: ") for message in messages)


def test_files_that_are_not_images(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("no image")
    for image in (path, str(path), b"", b"no image", "data:image/png;base64,x"):
        with pytest.raises(ValueError, match=r"image.* cannot be decoded: "):
            load_image(image)
    with pytest.raises(FileNotFoundError, match=r"image file '.*nowhere\.png' not found"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(FileNotFoundError, match="image file"):
        load_image(tmp_path)


def test_huge_and_empty_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encoded(toy_image(1, (40, 36)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match=r"decoded: 40 x 36 pixels; `PIL\.Image\.MAX_IMAGE_PIXELS` is 1000"):
            load_image(data)
    with pytest.raises(ValueError, match=r"cannot be decoded: .*decompression bomb"):
        load_image(encoded(toy_image(1, (80, 80))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image(data).size == (40, 36)
    with pytest.raises(ValueError, match="0 x 4 pixels"):
        load_image(Image.new("RGB", (0, 4)))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ([toy_image(), toy_image()], ValueError, "one image per input; got 2"),
        ("https://example.org/cat.png", ValueError, "is a URL, and URLs are not fetched: download the image first"),
        (7, TypeError, "an image must be a PIL image, a path, bytes or an array; got int"),
        (
            np.zeros((5, 4, 2), np.uint8),
            ValueError,
            r"must be of shape .* with 1, 3 or 4 channels; got \(5, 4, 2\)",
        ),
        (np.full((3, 4, 4), 7.0), ValueError, r"must be uint8 or float in \[0, 1\]"),
        (np.full((3, 4, 4), np.nan), ValueError, r"must be uint8 or float in \[0, 1\]"),
    ],
)
def test_values_that_are_not_images(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_image(image)
    with pytest.raises(error, match=f"input 1: .*{message}"):
        tiny_processor()(text=["a cat", "a dog"], images=[None, image])


def test_documents(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    toy_image().save(path)
    values = ["a red cat", path, str(path), {"text": "a cat", "image": str(path)}, {"text": " ", "image": path}]
    documents = parse_inputs([*values, {"text": "a dog"}, {"text": "https://example.org", "image": None}])
    assert documents == [
        ModelInput("a red cat", None), ModelInput(None, path), ModelInput(None, str(path)),
        ModelInput("a cat", str(path)),
        ModelInput(None, path), ModelInput("a dog", None), ModelInput("https://example.org", None),
    ]  # fmt: skip
    assert [document.kind for document in documents[:4]] == ["text", "image", "image", "image,text"]
    # a text that only looks like a file, and one that names a folder
    assert parse_input("what is in cat.png").kind == parse_input("a.png").kind == "text"
    assert parse_input(str(tmp_path)).kind == "text"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("", ValueError, "the text is empty"),
        (" \n", ValueError, "the text is empty"),
        ({"text": None, "image": None}, ValueError, "an input needs a text or an image; got neither"),
        ({}, ValueError, "an input needs a text or an image; got neither"),
        ({"text": "", "image": None}, ValueError, "an input needs a text or an image; got neither"),
        ({"text": 7}, TypeError, "'text' must be a str or None; got int"),
        ({"caption": "a cat", "img": None}, ValueError, r"unknown key\(s\) caption, img; valid keys are"),
        ({"image": [toy_image(), toy_image()]}, ValueError, "one image per input; got 2"),
        ({"image": "nowhere.png"}, FileNotFoundError, "image file 'nowhere.png' not found"),
        ("https://example.org/cat.png", ValueError, "is a URL, and URLs are not fetched"),
        (None, TypeError, "an input must be a str, a PIL image, .* got NoneType"),
        (b"bytes", TypeError, "an input must be a str, .* got bytes"),
        (3.5, TypeError, "an input must be a str, .* got float"),
    ],
)
def test_values_that_are_not_inputs(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^input 2: .*{message}"):
        parse_inputs(["a cat", "a dog", value])
