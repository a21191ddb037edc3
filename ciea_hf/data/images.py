"""Encoded images, which are read and decoded on demand.

A corpus stores the bytes or the path of each image. For the lines of a TSV file of `id<TAB>base64` the path is a URL,
`tsv-image://%2Ffolder%2Fimgs.tsv/{offset}-{size}/{id}`, which fsspec opens with [`TsvImageFileSystem`]. A corpus over a
TSV file of any size is therefore a small table that works everywhere in `datasets`, and reading a row costs one
positioned read. No file is kept open, so threads and forked or spawned workers may all read.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

import fsspec
import numpy as np
from fsspec.spec import AbstractFileSystem

from ciea_hf.data.issues import IssueHandler, Location, raise_on_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL import Image

PROTOCOL = "tsv-image"
LONGEST_LINE = 512 << 20  # bytes; longer lines are rejected
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # Pillow's name for bytes, which differs in every run
_STEP = 1 << 18  # bytes read at once if the size of a line is unknown

UPLOAD_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Of Pillow's formats, those that need no other program: the formats of images that users send."""

EncodedImage = dict[str, Any]  # {"bytes": bytes | None, "path": str | None}
UNAVAILABLE: EncodedImage = {"bytes": None, "path": None}
"""An image that the data refer to but that is missing."""


class TsvImages:
    """A TSV file of images: lines of `id<TAB>base64 of the image file`.

    Args:
        file: Path of the file.
        offsets: Byte offsets of the lines.

    Raises:
        FileNotFoundError: If the file does not exist.
    """

    def __init__(self, file: Path, offsets: Iterable[int]) -> None:
        self.file = file.resolve()
        self._size = self.file.stat().st_size
        starts = np.unique(np.fromiter((min(offset, self._size) for offset in offsets), dtype=np.int64))
        self._bounds = np.append(starts, self._size)
        # the file's path is quoted, because fsspec drops leading slashes
        self._prefix = f"{PROTOCOL}://{quote(str(self.file), safe='')}"

    def encoded(self, name: str, offset: int) -> EncodedImage:
        """Return the image whose line begins at an offset in the encoded form of a corpus, without reading it."""
        following = int(np.searchsorted(self._bounds, min(offset, self._size), side="right"))
        end = int(self._bounds[min(following, len(self._bounds) - 1)])
        return {"bytes": None, "path": f"{self._prefix}/{offset}-{max(0, end - offset)}/{quote(name, safe='')}"}

    def lines(self) -> Iterator[TsvLine]:
        """Read the whole file, in order."""
        offset = 0
        with self.file.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                name, _, payload = line.rstrip(b"\r\n").partition(b"\t")
                if line.strip():
                    location = Location(str(self.file), number)
                    yield TsvLine(location, offset, name.decode("utf-8", "replace"), payload)
                offset += len(line)


class TsvLine(NamedTuple):
    """A line of a TSV file of images, not yet decoded."""

    location: Location
    offset: int
    id: str
    payload: bytes

    def image(self) -> bytes:
        """Decode the line; raises the errors of [`image_source`]."""
        return _decode(self.payload, str(self.location), self.id)


def read_index(path: Path, report: IssueHandler = raise_on_error) -> dict[str, tuple[int, Location]]:
    """Read an index of `id<TAB>offset`: offset and location of each id."""
    from ciea_hf.data.parsing import text_lines

    found: dict[str, tuple[int, Location]] = {}
    for location, line in text_lines(path, report):
        name, _, text = line.partition("\t")
        if not text.strip().isdecimal():
            report("unreadable", location, name, f"a line must be an id, a tab and an offset; got {line[:80]!r}")
        elif name in found and found[name][0] != int(text):
            message = f"offset {int(text)} contradicts {found[name][0]} in line {found[name][1].number}"
            report("offset", location, name, message)
        else:
            found.setdefault(name, (int(text), location))
    return found


def image_source(encoded: EncodedImage) -> bytes | str:
    """Return the bytes or the path of an encoded image, for `ciea_hf.modeling.images_ciea.load_image`.

    Raises:
        ValueError: If it has neither, or its line in a TSV file is invalid or belongs to another image.
        FileNotFoundError: If its TSV file is missing.
    """
    if encoded["bytes"] is not None:
        content: bytes = encoded["bytes"]
        return content
    if encoded["path"] is None:
        raise ValueError("image is missing: neither bytes nor path")
    path = str(encoded["path"])
    return read_tsv_image(path) if path.startswith(f"{PROTOCOL}://") else path


def open_upload(content: bytes, max_pixels: int) -> Image.Image:
    """Read the header of an image that a user has sent; its pixels are not decoded.

    Args:
        content: The encoded image.
        max_pixels: Maximum number of pixels.

    Raises:
        ValueError: If it is not a valid file in one of `UPLOAD_FORMATS`, or has too many pixels.
    """
    from PIL import Image

    try:
        image = Image.open(BytesIO(content), formats=UPLOAD_FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"the image is too large: {error}; the maximum is {max_pixels} pixels") from error
    except Exception as error:  # Pillow raises exceptions of many classes for damaged files
        formats = ", ".join(UPLOAD_FORMATS)
        raise ValueError(
            f"the image cannot be decoded; it must be a valid file in one of the formats {formats}"
        ) from error
    if image.width * image.height > max_pixels:
        raise ValueError(f"the image has {image.width} x {image.height} pixels; the maximum is {max_pixels}")
    return image


def path_inside(root: Path, path: Any) -> str:
    """Resolve the path of an image, which must be inside a folder.

    Args:
        root: The folder; relative paths start here.
        path: Path of an image, which may be missing.

    Returns:
        The absolute path, without symbolic links.

    Raises:
        TypeError: If the path is not a text.
        ValueError: If it is a URL, leads out of the folder, or names something other than a regular file.
    """
    if not isinstance(path, str):
        raise TypeError(f"the path of an image must be a text; got {str(path)[:80]}")
    if "://" in path or path.startswith("data:"):
        raise ValueError(f"image {path[:80]!r} is a URL; images are read from files, and nothing is fetched")
    full = root / path
    resolved = os.path.join(_resolved(str(full.parent)), full.name)  # noqa: PTH118 (a corpus may have a million)
    try:
        mode = os.lstat(resolved).st_mode
        if stat.S_ISLNK(mode):
            resolved = os.path.realpath(resolved)
            mode = os.lstat(resolved).st_mode
    except (OSError, ValueError):  # missing, or no name of a file
        mode = stat.S_IFREG
    if not resolved.startswith(_resolved(str(root)).rstrip(os.sep) + os.sep):
        raise ValueError(f"image {path[:80]!r} is outside the data set's folder {root}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"image {path[:80]!r} is not a regular file")
    return resolved


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    return os.path.realpath(folder)


def image_bytes(encoded: EncodedImage) -> bytes:
    """Return the bytes of an encoded image; raises the errors of [`image_source`]."""
    source = image_source(encoded)
    if isinstance(source, bytes):
        return source
    from ciea_hf.modeling.images_ciea import check_image  # late: it imports torch

    check_image(source)
    return Path(source).read_bytes()


def decode_image(content: bytes | str) -> Image.Image:
    """Decode the result of [`image_source`] in the same way as inputs of a model.

    Raises:
        ValueError: If the image is corrupt, truncated or exceeds the pixel limit.
        FileNotFoundError: If its file does not exist.
    """
    from ciea_hf.modeling.images_ciea import load_image

    try:
        return load_image(content)
    except ValueError as error:
        raise ValueError(_ADDRESS.sub("", str(error))) from error


def location_in_folder(path: str) -> str:
    """Return the part of an image's path that does not depend on its folder: the name, or line and id in a TSV file."""
    return path.split("/", 3)[3] if path.startswith(f"{PROTOCOL}://") else Path(path).name


def file_size(path: str) -> int | None:
    """Return the size of an image file in bytes; `None` for a line of a TSV file, or if the file does not exist."""
    try:
        return None if "://" in path else os.stat(path).st_size  # noqa: PTH116 (a corpus may have a million)
    except OSError:
        return None


def read_tsv_image(url: str) -> bytes:
    """Read the bytes of the image at a `tsv-image` URL; raises the errors of [`image_source`]."""
    head, _, name = url.removeprefix(f"{PROTOCOL}://").rpartition("/")
    quoted, _, span = head.rpartition("/")
    offset, _, size = span.partition("-")
    if not (quoted and offset.isdecimal() and size.isdecimal()):
        raise ValueError(f"{url!r} is not a valid URL of a line in a TSV file of images")
    file, name = unquote(quoted), unquote(name)
    line = _read_line(file, int(offset), int(size))
    found, _, payload = line.partition(b"\t")
    if found != name.encode("utf-8"):
        raise ValueError(f"{file}: no line of image {name!r} at byte {offset}; does the index belong to another file?")
    return _decode(payload, f"{file}, byte {offset}", name)


class TsvImageFileSystem(AbstractFileSystem):  # type: ignore[misc, unused-ignore]  # fsspec is not typed
    """Opens the images of TSV files by URL, for fsspec and `datasets`."""

    protocol = PROTOCOL

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{PROTOCOL}://")

    def _open(self, path: str, mode: str = "rb", **_options: Any) -> BytesIO:
        if mode != "rb":
            raise ValueError(f"`mode` must be 'rb'; got {mode!r}")
        return BytesIO(read_tsv_image(path))

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """Describe a path; every path is a file."""
        return {"name": path, "size": None, "type": "file"}


def _read_line(file: str, offset: int, size: int) -> bytes:
    """Read the line at an offset; `size` is an estimate."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(file, flags)
    try:
        line = _read_at(handle, size or _STEP, offset)
        while line and b"\n" not in line:
            more = _read_at(handle, max(_STEP, len(line)), offset + len(line))
            if not more:
                break
            line += more
            if len(line) > LONGEST_LINE:
                raise ValueError(f"{file}: the line at byte {offset} is longer than {LONGEST_LINE} bytes")
    finally:
        os.close(handle)
    return line.partition(b"\n")[0].rstrip(b"\r")


def _read_at(handle: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size, offset)
    os.lseek(handle, offset, os.SEEK_SET)  # Windows; the handle belongs to this call
    return os.read(handle, size)


def _decode(payload: bytes, location: str, name: str) -> bytes:
    try:
        return base64.b64decode(payload.strip(), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{location}: image {name!r} is not base64: {error}") from None


fsspec.register_implementation(PROTOCOL, TsvImageFileSystem, clobber=True)
