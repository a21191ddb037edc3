"""Documents of a corpus as inputs of a model: the one way from a corpus row to what is embedded."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ciea_hf.choices import CONTENT, ON_BROKEN_IMAGE
from ciea_hf.data.dataset import column_values
from ciea_hf.data.images import decode_image, image_bytes, image_source
from ciea_hf.retrieval.records import DocumentRecord, document_records
from ciea_hf.utils import short_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image
    from torch import Tensor

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.images_ciea import PreprocessedImage

logger = logging.getLogger(__name__)

_IMAGES_AT_ONCE = 32  # encoded images in memory while their contents are hashed


class PatchFeatures(Protocol):
    """Precomputed patch features by document id."""

    def __getitem__(self, document: str) -> Tensor:
        """Return the features (P, vision width) of an image; raise `ValueError` if it could not be decoded."""


@dataclass
class DocumentInput:
    """A document as it is embedded: text, a decoded image or its features, or both.

    Attributes:
        row: Position in the corpus.
        text: Text or caption, or `None`.
        image: Image, decoded or preprocessed, or `None`.
        features: Patch features (P, vision width) in place of the image, or `None`.
    """

    row: int
    text: str | None
    image: Image.Image | PreprocessedImage | None = None
    features: Tensor | None = None

    @property
    def has_image(self) -> bool:
        """Whether there is an image, decoded or as features."""
        return self.image is not None or self.features is not None


class DocumentView:
    """Rows of a corpus as inputs of a model, with one policy for images that cannot be decoded.

    Encoding, evaluation, search, mining and training all read documents through this class. Images are decoded only
    when their row is read.

    Args:
        dataset: Data set whose corpus is viewed.
        content: `"full"`; `"caption"` drops all images; `"image"` drops the captions of images and leaves text
            documents as they are.
        captions: Texts in place of the corpus's own, by position; the corpus's own if `None`.
        on_broken_image: What to do with an image that cannot be decoded: `"fail"` raises, `"skip"` leaves the document
            out, `"caption"` falls back to its caption and leaves out a document without one. The last two log a
            warning that names the document.
        features: Patch features by document id in place of the images, or `None`.
        preprocess: Turns a decoded image into the input of a vision tower, so that images are not held at full size;
            see `CIEAProcessor.preprocess_image`.

    Raises:
        ValueError: If an argument is invalid, or the number of captions differs from the number of documents.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        content: str = "full",
        captions: Sequence[str | None] | None = None,
        on_broken_image: str = "fail",
        features: PatchFeatures | None = None,
        preprocess: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        for name, value, choices in (
            ("content", content, CONTENT),
            ("on_broken_image", on_broken_image, ON_BROKEN_IMAGE),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}; got {value!r}")
        if captions is not None and len(captions) != len(dataset.corpus):
            raise ValueError(
                f"`captions` must have {len(dataset.corpus)} entries, one per document; got {len(captions)}"
            )
        self.content = content
        self.captions = captions
        self.on_broken_image = on_broken_image
        self.features = features
        self.preprocess = preprocess
        self.ids = dataset.corpus_ids
        self.kinds = [dataset.document_kinds[document] for document in self.ids]
        self.dataset = dataset
        self._texts = dataset.corpus.select_columns(["text"])
        self._images = dataset.encoded_images()
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> DocumentView:
        """Return a view of these rows of the corpus, in this order."""
        view = copy.copy(self)  # shares the set of reported documents
        view.dataset = self.dataset.select(rows)
        view.captions = None if self.captions is None else [self.captions[row] for row in rows]
        view.ids = [self.ids[row] for row in rows]
        view.kinds = [self.kinds[row] for row in rows]
        view._texts = view.dataset.corpus.select_columns(["text"])
        view._images = view.dataset.encoded_images()
        return view

    def records(self) -> list[DocumentRecord]:
        """List id, kind, text or caption of the corpus, and metadata of every document; no image is decoded."""
        return document_records(self.dataset)

    def content_hashes(self) -> list[str]:
        """Hash the content of every document: text, encoded image and metadata; images are read, but not decoded."""
        hashes = []
        records = self.records()
        for start in range(0, len(self), _IMAGES_AT_ONCE):
            images = self._images[start : start + _IMAGES_AT_ONCE]["image"]
            for row, image in enumerate(images, start=start):
                text = records[row].text if self.captions is None else self.captions[row]
                parts = [self.content, records[row].kind, text, records[row].metadata]
                content = json.dumps(parts, ensure_ascii=False, sort_keys=True)
                digest = hashlib.sha256(content.encode("utf-8", "surrogatepass"))
                if self.kinds[row] == "image":
                    digest.update(_bytes_of(image))
                hashes.append(digest.hexdigest()[:32])
        return hashes

    def preprocessed_for(self, model: Any) -> DocumentView:
        """Return a view whose images are preprocessed for a model, if it can take such images."""
        view = copy.copy(self)
        view.preprocess = getattr(model, "preprocess_image", self.preprocess)
        return view

    @property
    def corpus_fingerprint(self) -> str:
        """Fingerprint of the corpus, whatever the content."""
        return self.dataset.corpus_fingerprint

    @property
    def fingerprint(self) -> str:
        """Hash of the corpus, the chosen content and the captions: views with equal fingerprints give equal inputs.

        `on_broken_image` is not included: embeddings computed before the first broken image are valid under any policy.
        """
        captions = None if self.captions is None else list(self.captions)
        return short_hash(json.dumps([self.corpus_fingerprint, self.content, captions], ensure_ascii=False))

    def text(self, row: int) -> str | None:
        """Return the text or caption of a document; `None` if it is missing or blank."""
        return _text_or_none(self._texts[row]["text"] if self.captions is None else self.captions[row])

    def texts(self) -> list[str | None]:
        """Return the texts and captions of all documents."""
        texts = column_values(self._texts, "text") if self.captions is None else self.captions
        return [_text_or_none(text) for text in texts]

    def usable_rows(self) -> list[int]:
        """Return the rows of which the chosen content leaves something to embed."""
        return [
            row
            for row, text in enumerate(self.texts())
            if text is not None or (self.content != "caption" and self.kinds[row] == "image")
        ]

    def image(self, row: int) -> Image.Image:
        """Decode the image of a document, whatever the chosen content.

        Raises:
            ValueError: If it cannot be decoded.
            FileNotFoundError: If its file is missing.
        """
        return decode_image(image_source(self._images[row]["image"]))

    def read(self, row: int, broken: dict[str, str] | None = None) -> DocumentInput | None:
        """Read a document, decoding its image.

        Args:
            row: Position in the corpus.
            broken: Receives the id of a document whose image cannot be decoded, and the reason; a warning is logged if
                `None`.

        Returns:
            The document; `None` if nothing of it is left.

        Raises:
            ValueError: If the image cannot be decoded and the policy is `"fail"`; the message names the document.
            FileNotFoundError: Likewise, if the image's file is missing.
        """
        return self._document(row, self.text(row), self.image, broken)

    def batch(self, start: int, stop: int) -> list[Any]:
        """Return the inputs of `encode_document` at positions `start` to `stop`, with images decoded.

        An image with a caption becomes `{"text": ..., "image": ...}`, an image alone the image, a text the string, and
        a document of which nothing is left `None`. With `features`, a tensor takes the place of each image.

        Raises:
            ValueError: As [`read`].
            FileNotFoundError: As [`read`].
        """
        texts = self._texts[start:stop]["text"] if self.captions is None else self.captions[start:stop]
        images = None if self.features is not None or self.content == "caption" else self._images[start:stop]["image"]
        inputs: list[Any] = []
        for offset, text in enumerate(texts):
            decode = (lambda _, encoded=images[offset]: decode_image(image_source(encoded))) if images else self.image
            document = self._document(start + offset, _text_or_none(text), decode)
            if document is None:
                inputs.append(None)
            else:
                image = document.image if document.features is None else document.features
                inputs.append(model_input(document.text, image))
        return inputs

    def _document(
        self, row: int, text: str | None, decode: Callable[[int], Image.Image], broken: dict[str, str] | None = None
    ) -> DocumentInput | None:
        if self.kinds[row] == "text" or self.content == "caption":
            return None if text is None else DocumentInput(row, text)
        caption = None if self.content == "image" else text
        try:
            if self.features is not None:
                return DocumentInput(row, caption, features=self.features[self.ids[row]])
            image = decode(row)
            return DocumentInput(row, caption, image=self.preprocess(image) if self.preprocess else image)
        except (ValueError, FileNotFoundError) as error:
            self.report_broken(row, error, broken)
        if self.on_broken_image == "skip" or caption is None:
            return None
        return DocumentInput(row, caption)

    def report_broken(
        self, row: int, error: ValueError | FileNotFoundError, broken: dict[str, str] | None = None
    ) -> None:
        """Apply the policy to an image that cannot be decoded: raise, collect the reason, or log it once.

        Args:
            row: Position of the document.
            error: What decoding raised.
            broken: See [`read`].
        """
        document = self.ids[row]
        if self.on_broken_image == "fail":
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(
                f"document {document!r}: {error}; `on_broken_image` 'skip' leaves the document out, 'caption' falls "
                "back to its caption"
            ) from error
        if broken is not None:
            broken[document] = str(error)
        elif document not in self._reported:
            self._reported.add(document)
            action = "is left out" if self.on_broken_image == "skip" else "falls back to its caption"
            logger.warning("document %r %s: %s", document, action, error)


def model_input(text: str | None, image: Any) -> Any:
    """Join text and image into an input of `encode_document`; `None` if both are missing, or the text is blank."""
    text = _text_or_none(text)
    if image is None:
        return text
    return image if text is None else {"text": text, "image": image}


def _bytes_of(image: Any) -> bytes:
    """Return the bytes of an encoded image, or a mark if it cannot be read: reading applies the policy for such."""
    try:
        return b"-" if image is None else image_bytes(image)
    except (OSError, ValueError):
        return b"-"


def _text_or_none(text: str | None) -> str | None:
    if text is not None and not isinstance(text, str):
        raise TypeError(f"a text must be a str; got {type(text).__name__}")
    return text if text and text.strip() else None
