"""The documents of a corpus as a model takes them, whole or in part."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.modeling.inputs_ciea import DECODING_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from ciea_hf.data import RetrievalDataset

logger = logging.getLogger(__name__)

CONTENT_CHOICES = ("full", "caption", "image")
ON_BROKEN_IMAGE = ("fail", "caption")
_BROKEN = object()  # stands for a picture that cannot be decoded


class DocumentRecord(NamedTuple):
    """What a search result shows of a document: id, kind (``"image"`` or ``"text"``) and text or caption."""

    id: str
    kind: str
    text: str | None


class DocumentView:
    """Rows of a corpus as inputs of ``encode_document``.

    A document with a picture and a caption becomes ``{"text": ..., "image": ...}``, a picture alone the picture, text
    the string, and a document of which nothing is left None. Pictures are decoded only when a batch asks for them.

    Args:
        dataset: The data set whose corpus is viewed.
        content: ``"full"``; ``"caption"`` drops every picture; ``"image"`` drops the captions of pictures and leaves
            text documents as they are.
        captions: Texts to use in place of the corpus's own, by position; the corpus's own if None.
        on_broken_image: What a picture does that cannot be decoded: ``"fail"`` raises, ``"caption"`` leaves the
            document its caption alone and logs a warning that names it.

    Raises:
        ValueError: If an argument is out of its choices, or there are not as many captions as documents.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        content: str = "full",
        captions: Sequence[str | None] | None = None,
        on_broken_image: str = "fail",
    ) -> None:
        for name, value, choices in (
            ("content", content, CONTENT_CHOICES),
            ("on_broken_image", on_broken_image, ON_BROKEN_IMAGE),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        if captions is not None and len(captions) != len(dataset.corpus):
            raise ValueError(f"there are {len(captions)} captions for {len(dataset.corpus)} documents")
        self.content = content
        self.captions = captions
        self.on_broken_image = on_broken_image
        self.corpus_fingerprint = dataset.corpus_fingerprint
        self._texts = dataset.corpus.select_columns(["id", "text"])
        self._rows = self._texts if content == "caption" else dataset.corpus

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fingerprint(self) -> str:
        """Hash of the corpus, the chosen part and the captions: equal views give equal inputs.

        ``on_broken_image`` has no part in it: what a stopped run has embedded holds no broken picture, and counts.
        """
        captions = None if self.captions is None else list(self.captions)
        content = json.dumps([self.corpus_fingerprint, self.content, captions], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def batch(self, start: int, stop: int) -> list[Any]:
        """Return the inputs at positions ``start`` to ``stop``, with pictures decoded.

        Raises:
            ValueError: If a picture cannot be decoded and has to be; the message names its document.
        """
        rows = self._read(start, stop)
        texts = rows["text"] if self.captions is None else self.captions[start:stop]
        images = rows.get("image") or [None] * len(texts)
        if self.content == "image":
            texts = [text if image is None else None for text, image in zip(texts, images, strict=True)]
        images = [None if image is _BROKEN else image for image in images]
        return [model_input(text, image) for text, image in zip(texts, images, strict=True)]

    def _read(self, start: int, stop: int) -> dict[str, list[Any]]:
        try:
            rows: dict[str, list[Any]] = self._rows[start:stop]
        except DECODING_ERRORS:  # what Pillow raises for a broken picture: find out which one
            singly = [self._row(position) for position in range(start, min(stop, len(self)))]
            rows = {name: [row[name] for row in singly] for name in ("text", "image")}
        return rows

    def _row(self, position: int) -> dict[str, Any]:
        try:
            row: dict[str, Any] = self._rows[position]
        except DECODING_ERRORS as error:
            row = {**self._texts[position], "image": _BROKEN}
            said = f"the picture of document {row['id']!r} (row {position}) is broken: {error}"
            if self.on_broken_image == "fail":
                raise ValueError(f"{said}; on_broken_image='caption' would leave it its caption alone") from error
            logger.warning("%s; its caption stands alone", said)
        return row


def model_input(text: str | None, image: Any) -> Any:
    """Join text and picture into what ``encode_document`` takes; None if both are missing, a blank text too."""
    written = text if text and text.strip() else None
    if image is None:
        return written
    return image if written is None else {"text": written, "image": image}


def image_lookup(dataset: RetrievalDataset) -> Callable[[str], Image.Image | None]:
    """Return a function that decodes the picture of a document id; None where there is none, or it is broken."""
    positions = {name: position for position, name in enumerate(dataset.corpus_ids)}

    def image_of(document: str) -> Image.Image | None:
        position = positions.get(document)
        try:
            image: Image.Image | None = None if position is None else dataset.corpus[position]["image"]
        except DECODING_ERRORS as error:
            logger.warning("the picture of document %r is broken: %s", document, error)
            return None
        return image

    return image_of


def document_records(dataset: RetrievalDataset) -> list[DocumentRecord]:
    """List id, kind and text of every document without decoding a picture."""
    texts = dataset.corpus.select_columns(["text"])[:]["text"]
    kinds = dataset.document_kinds
    return [DocumentRecord(name, kinds[name], text) for name, text in zip(dataset.corpus_ids, texts, strict=True)]
