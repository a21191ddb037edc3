"""Encoded images that stay where they are until they are decoded.

A corpus holds, for each image, its bytes or a path ([`Image`]). For the lines of a TSV file of
`id<TAB>base64` the path is a URL, `tsv-image://%2Ffolder%2Fimgs.tsv/{offset}-{size}/{id}`, which fsspec opens with
[`TsvImageFileSystem`]: so a corpus of a TSV file of any size is a small table, every part of `datasets` works on
it, and a row that is read costs one positioned read. Nothing is kept open: threads, forked workers and spawned ones may
all read.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
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
LONGEST_LINE = 512 << 20  # bytes; a longer one is refused
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # Pillow's name of bytes, another in every run
_STEP = 1 << 18  # bytes read at once where the size of a line is not known

EncodedImage = dict[str, Any]  # {"bytes": bytes | None, "path": str | None}
UNAVAILABLE: EncodedImage = {"bytes": None, "path": None}
"""An image that is named and not to be had."""


class TsvImages:
    """A TSV file of images: lines of `id<TAB>base64 of the image file`.

    Args:
        file: The file.
        offsets: The bytes at which lines begin.

    Raises:
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, file: Path, offsets: Iterable[int]) -> None:
        self.file = file.resolve()
        self._size = self.file.stat().st_size
        starts = np.unique(np.fromiter((min(offset, self._size) for offset in offsets), dtype=np.int64))
        self._bounds = np.append(starts, self._size)
        # no slash of the file's path may stand in the URL: leading ones get lost on the way
        self._prefix = f"{PROTOCOL}://{quote(str(self.file), safe='')}"

    def encoded(self, name: str, offset: int) -> EncodedImage:
        """Return the image whose line begins at an offset, as a corpus holds it: nothing is read."""
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
                    place = Location(str(self.file), number)
                    yield TsvLine(place, offset, name.decode("utf-8", "replace"), payload)
                offset += len(line)


class TsvLine(NamedTuple):
    """A line of a TSV file of images, not yet decoded."""

    place: Location
    offset: int
    id: str
    payload: bytes

    def image(self) -> bytes:
        """Decode the line; raises as [`image_source`]."""
        return _decode(self.payload, str(self.place), self.id)


def read_index(path: Path, report: IssueHandler = raise_on_error) -> dict[str, tuple[int, Location]]:
    """Read an index of `id<TAB>offset`: for each id the offset, and where the index says so."""
    from ciea_hf.data.parsing import text_lines

    found: dict[str, tuple[int, Location]] = {}
    for place, line in text_lines(path, report):
        name, _, text = line.partition("\t")
        if not text.strip().isdecimal():
            report("unreadable", place, name, f"a line is an id, a tab and an offset; got {line[:80]!r}")
        elif name in found and found[name][0] != int(text):
            message = f"offset {int(text)} contradicts {found[name][0]} in line {found[name][1].number}"
            report("offset", place, name, message)
        else:
            found.setdefault(name, (int(text), place))
    return found


def image_source(encoded: EncodedImage) -> bytes | str:
    """Return what `ciea_hf.modeling.inputs_ciea.load_image` reads of an encoded image: its bytes, or its path.

    Raises:
        ValueError: If it has neither, or its line in a TSV file is broken or another one.
        FileNotFoundError: If its TSV file is missing.
    """
    if encoded["bytes"] is not None:
        content: bytes = encoded["bytes"]
        return content
    if encoded["path"] is None:
        raise ValueError("the image is named, but not to be had: it has neither bytes nor a path")
    path = str(encoded["path"])
    return read_tsv_image(path) if path.startswith(f"{PROTOCOL}://") else path


def image_bytes(encoded: EncodedImage) -> bytes:
    """Return the bytes of an encoded image, wherever they are; raises as [`image_source`]."""
    source = image_source(encoded)
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def decode_image(content: bytes | str) -> Image.Image:
    """Decode what [`image_source`] gives, as the model's own inputs are decoded.

    Raises:
        ValueError: If the image is broken, truncated or of too many pixels.
        FileNotFoundError: If there is no file at its path.
    """
    from ciea_hf.modeling.inputs_ciea import load_image

    try:
        return load_image(content)
    except ValueError as error:
        raise ValueError(_ADDRESS.sub("", str(error))) from error


def location_in_folder(path: str) -> str:
    """Return what of an image's path stays the same when its folder moves: the name, or line and id in a TSV file."""
    return path.split("/", 3)[3] if path.startswith(f"{PROTOCOL}://") else Path(path).name


def file_size(path: str) -> int | None:
    """Bytes of an image's file; None for a line of a TSV file, whose place says it, and for what is no file here."""
    try:
        return None if "://" in path else os.stat(path).st_size  # noqa: PTH116 (a corpus may have a million)
    except OSError:
        return None


def read_tsv_image(url: str) -> bytes:
    """Read the image that a `tsv-image` URL names: the bytes of its file; raises as [`image_source`]."""
    head, _, name = url.removeprefix(f"{PROTOCOL}://").rpartition("/")
    quoted, _, span = head.rpartition("/")
    offset, _, size = span.partition("-")
    if not (quoted and offset.isdecimal() and size.isdecimal()):
        raise ValueError(f"{url!r} names no line of a TSV file of images")
    file, name = unquote(quoted), unquote(name)
    line = _read_line(file, int(offset), int(size))
    found, _, payload = line.partition(b"\t")
    if found != name.encode("utf-8"):
        raise ValueError(f"{file}: at byte {offset} there is no line of image {name!r}: the index is of another file")
    return _decode(payload, f"{file}, byte {offset}", name)


class TsvImageFileSystem(AbstractFileSystem):  # type: ignore[misc, unused-ignore]  # fsspec is not typed
    """Opens the images of TSV files by their URL, for fsspec and with it for `datasets`."""

    protocol = PROTOCOL

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{PROTOCOL}://")

    def _open(self, path: str, mode: str = "rb", **_options: Any) -> BytesIO:
        if mode != "rb":
            raise ValueError(f"an image of a TSV file can only be read; got mode {mode!r}")
        return BytesIO(read_tsv_image(path))

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """Describe a path: all are files."""
        return {"name": path, "size": None, "type": "file"}


def _read_line(file: str, offset: int, size: int) -> bytes:
    """Read the line at an offset; `size` is a guess."""
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
    os.lseek(handle, offset, os.SEEK_SET)  # Windows; the handle is this call's own
    return os.read(handle, size)


def _decode(payload: bytes, place: str, name: str) -> bytes:
    try:
        return base64.b64decode(payload.strip(), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{place}: image {name!r} is not base64: {error}") from None


fsspec.register_implementation(PROTOCOL, TsvImageFileSystem, clobber=True)
