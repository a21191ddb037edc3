"""Queries of the page, the link that repeats one, and images that users send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ciea_hf.data.images import open_upload
from ciea_hf.modeling.images_ciea import load_image
from ciea_hf.retrieval.documents import model_input

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image

KINDS = ("all", "image", "text")
TOP_KS = (5, 10, 20, 50)
DEFAULT_TOP_K = 10
MAX_TEXT = 10_000  # characters


@dataclass(frozen=True)
class Query:
    """A query and how its hits are chosen.

    Attributes:
        text: Text, or `None`.
        image: File of an image, or `None`.
        kind: Kind of the documents to find, one of `KINDS`.
        top_k: Number of hits.
        max_pixels: Maximum number of pixels of the image.
    """

    text: str | None
    image: Path | None = None
    kind: str = "all"
    top_k: int = DEFAULT_TOP_K
    max_pixels: int = 32_000_000

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if not 1 <= self.top_k <= TOP_KS[-1]:
            raise ValueError(f"`top_k` must be from 1 to {TOP_KS[-1]}; got {self.top_k}")
        if self.text is not None and len(self.text) > MAX_TEXT:
            raise ValueError(f"`text` must have at most {MAX_TEXT} characters; got {len(self.text)}")

    @property
    def is_empty(self) -> bool:
        """Whether there is neither text nor image."""
        return self.text is None and self.image is None

    @property
    def conditions(self) -> dict[str, Any] | None:
        """Filter on the documents."""
        return None if self.kind == "all" else {"modality": self.kind}

    def content(self) -> Any:
        """Return what is embedded: a text, a decoded image, or a dict of both.

        Raises:
            ValueError: If the image cannot be decoded or is too large.
        """
        return model_input(self.text, None if self.image is None else read_upload(self.image, self.max_pixels))

    def link(self) -> str:
        """Return the parameters of the URL that repeats the search; an image is not part of it."""
        parameters: dict[str, Any] = {} if self.text is None else {"q": self.text}
        if self.kind != KINDS[0]:
            parameters["kind"] = self.kind
        if self.top_k != DEFAULT_TOP_K:
            parameters["k"] = self.top_k
        return urlencode(parameters)


def read_link(parameters: Mapping[str, str]) -> tuple[str, str, int]:
    """Read text, kind and number of hits from the parameters of a URL; invalid values become the defaults."""
    text = parameters.get("q", "")[:MAX_TEXT]
    kind = parameters.get("kind", "")
    numbers = {str(number): number for number in TOP_KS}
    top_k = numbers.get(parameters.get("k", ""), DEFAULT_TOP_K)
    return text, kind if kind in KINDS else KINDS[0], top_k


def read_upload(path: Path, max_pixels: int) -> Image.Image:
    """Decode an image that a user has sent.

    Args:
        path: The uploaded file.
        max_pixels: Maximum number of pixels.

    Raises:
        ValueError: If it is missing, invalid or too large.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError("the image is not stored any more; drop it again") from error
    image = open_upload(content, max_pixels)
    try:
        return load_image(image)
    except ValueError as error:
        raise ValueError(f"the image cannot be decoded: {str(error).partition(': ')[2]}") from error
