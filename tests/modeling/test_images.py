"""The one function that opens images: texts that look like paths, damaged metadata, closed files, memory."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from ciea_hf.modeling import load_image, parse_input
from ciea_hf.modeling.images_ciea import PreprocessedImage
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "La", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "I", "F")
NOT_IMAGES = (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), complex), np.array([["a"]]), np.zeros(4))
LONG_TEXT = "A view of the harbour " * 14 + "IMG_1234.jpg"


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif_block(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Write an EXIF block by hand: tag, type, count and four bytes of value per entry."""
    body = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + body + struct.pack(">I", 0)


@pytest.mark.parametrize(
    "text", [LONG_TEXT, "a\0b.png", "x" * 5000 + ".png", "/root/\ud83d.png".encode("utf-8", "replace").decode()]
)
def test_a_text_that_no_file_can_be_called_is_a_text(text: str) -> None:
    assert parse_input(text).kind == "text"
    model = tiny_model()
    np.testing.assert_array_equal(model.encode(["fine", text]), model.encode(["fine", {"text": text}]))


def test_a_text_in_a_folder_that_may_not_be_read_is_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_options: Any) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.stat", refuse)
    assert parse_input(str(tmp_path / "locked" / "cat.png")).kind == "text"


def test_an_unknown_image_string_is_named_in_a_short_error() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        tiny_model().encode(["fine", {"image": "iVBORw0KGgo" * 900}])
    assert str(caught.value).startswith("input 1: image file 'iVBORw0KGgo")
    assert len(str(caught.value)) < 180


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_rotated_as_pillow_rotates_them(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(toy_image(3, (12, 20)), form, exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    loaded = load_image(data)
    assert loaded.size == expected.size
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(load_image(loaded)), np.asarray(expected))  # and not once more


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "entry",
    [
        (0x010E, 11, 1, struct.pack(">f", 1.5)),  # a description that is a number
        (0x0128, 4, 1, struct.pack(">I", 2)),  # a unit of the wrong type
        (0x8769, 4, 1, struct.pack(">I", 0xFFFFFFF0)),  # a block beyond the end
        (0x9286, 7, 0xFFFFFF, b"\0\0\0\x10"),  # a comment that is longer than the file
    ],
)
def test_damaged_metadata_leave_the_pixels_and_the_orientation(form: str, entry: tuple[int, int, int, bytes]) -> None:
    turned = (0x0112, 3, 1, struct.pack(">HH", 6, 0))
    data = encoded(toy_image(3, (12, 20)), form, exif=exif_block(*sorted([entry, turned])))
    assert load_image(data).size == (20, 12)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!!!", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\xff" * 40])
def test_unreadable_metadata_leave_the_pixels(form: str, exif: bytes) -> None:
    plain, damaged = (load_image(encoded(toy_image(3, (12, 20)), form, **options)) for options in ({}, {"exif": exif}))
    np.testing.assert_array_equal(np.asarray(damaged), np.asarray(plain))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "TGA"])
def test_an_image_whose_file_was_closed_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"cat.{form.lower()}"
    path.write_bytes(encoded(toy_image(1), form))
    with Image.open(path) as image:
        pass
    with pytest.raises(ValueError, match="input 1: image cannot be decoded: its file was closed"):
        tiny_model().encode(["fine", image])


def test_files_of_broken_images_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(encoded(toy_image(1), "PNG")[:60])
    errors = []
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        try:
            load_image(path)
        except ValueError as error:
            errors.append(error)
    assert len(errors) == 20
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "La", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"]
)
def test_every_mode_is_decoded(mode: str) -> None:
    base = toy_image(2, (6, 5))
    image = (
        Image.new(mode, base.size, 1)
        if mode in ("I;16", "I", "F")
        else base.convert(mode.replace("La", "LA").replace("Ba", "BA"))
    )
    image = image.convert(mode) if mode in ("La", "RGBa") else image
    assert load_image(image).mode == "RGB"


def test_arrays_are_read_as_pillow_would_show_them() -> None:
    image = toy_image(2, (6, 5))
    grey, alpha = image.convert("L"), image.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize((6, 5)))
    for array, expected in (
        (np.asarray(grey), grey),
        (np.asarray(grey)[..., None], grey),
        (np.asarray(grey)[None], grey),
        (np.asarray(alpha), alpha),
        (np.asarray(alpha).transpose(2, 0, 1), alpha),
        (np.asarray(image).transpose(2, 0, 1), image),
        (np.asarray(grey) > 128, grey.point(lambda value: 255 * (value > 128))),
    ):
        np.testing.assert_array_equal(np.asarray(load_image(array)), np.asarray(load_image(expected)))


@pytest.mark.parametrize(
    "array", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), complex), np.array([["a"]]), np.zeros(4)]
)
def test_arrays_that_are_no_images_are_refused(array: Any) -> None:
    with pytest.raises(ValueError, match="image cannot be decoded: "):
        load_image(array)


@pytest.mark.parametrize("name", ["photo.tif", "photo.avif", "photo.ico", "PHOTO.JFIF"])
def test_a_text_that_names_another_image_file_is_embedded_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transformers_log: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_input(name).kind == "text"
    assert not transformers_log.messages
    (tmp_path / name).write_bytes(encoded(toy_image(1), "PNG"))
    assert parse_input(name).kind == "text"
    assert transformers_log.messages == [
        f"'{name}' is embedded as a text; to embed the image file of this name, pass a `Path`"
    ]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs device files")  # noqa: PTH110
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.png", tmp_path / "zero.png", "/dev/zero"):
        with pytest.raises(FileNotFoundError, match="not found, or not a regular file"):
            load_image(path)
    assert parse_input(str(tmp_path / "pipe.png")).kind == "text"


def test_photos_become_pixel_values_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    events: list[Any] = []

    def counted_load(image: Any) -> Image.Image:
        events.append("decode")
        return load_image(image)

    def counted_processor(images: list[Image.Image], **options: Any) -> Any:
        events.append(len(images))
        return image_processor(images, **options)

    image_processor = model.processor.image_processor
    monkeypatch.setattr("ciea_hf.modeling.batches_ciea.load_image", counted_load)
    monkeypatch.setattr(model.processor, "image_processor", counted_processor)
    photo, small = encoded(Image.new("RGB", (1500, 1500)), "PNG"), encoded(toy_image(1), "PNG")
    model.encode([{"image": data} for data in (photo, photo, photo)], batch_size=12)
    assert events == ["decode", 1] * 3
    events.clear()
    model.encode([{"image": small}] * 12, batch_size=12)
    assert events == ["decode"] * 12 + [12]


def test_preprocessed_images_give_the_same_embeddings() -> None:
    model = tiny_model()
    images = [toy_image(number, (40, 30 + number)) for number in range(3)]
    preprocessed = [model.preprocess_image(load_image(image)) for image in images]
    assert all(isinstance(image, PreprocessedImage) for image in preprocessed)
    np.testing.assert_array_equal(model.encode(preprocessed), model.encode(images))
    mixed = [images[0], preprocessed[1], {"text": "a cat", "image": preprocessed[2]}, "a dog"]
    plain = [images[0], images[1], {"text": "a cat", "image": images[2]}, "a dog"]
    np.testing.assert_array_equal(model.encode(mixed), model.encode(plain))
