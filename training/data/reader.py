"""Documents of a corpus as training reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ciea_hf.data import column_values
from ciea_hf.data.images import decode_image, image_source

if TYPE_CHECKING:
    from torch import Tensor

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.training.data.features import VisionFeatures

Part = Literal["full", "caption", "image"]


@dataclass
class DocumentInput:
    """A document as it is embedded: text, a decoded image or its features, or both.

    Attributes:
        row: In the corpus.
        text: Text or caption, or None.
        image: A PIL image, or None.
        features: Patch states (P, vision width) in place of the image, or None.
    """

    row: int
    text: str | None
    image: Any = None
    features: Tensor | None = None

    @property
    def has_image(self) -> bool:
        """Whether there is an image, decoded or as features."""
        return self.image is not None or self.features is not None


class CorpusReader:
    """Reads documents of a corpus as inputs of the model.

    Args:
        dataset: The data set.
        part: ``"full"``; ``"caption"`` reads no image; ``"image"`` reads images without their captions, and text
            documents as they are. Images are decoded, or looked up among the features.
        features: Precomputed patch states, or None.
    """

    def __init__(self, dataset: RetrievalDataset, part: Part = "full", features: VisionFeatures | None = None) -> None:
        from datasets import Image

        self.part = part
        self.features = features
        self.ids = dataset.corpus_ids
        self.kinds = [dataset.document_kinds[document] for document in self.ids]
        self._texts = dataset.corpus.select_columns(["text"])
        self._images = dataset.corpus.select_columns(["image"]).cast_column("image", Image(decode=False))
        self._wordless: frozenset[int] = frozenset()
        if part == "caption":
            self._wordless = frozenset(row for row, text in enumerate(self.texts()) if text is None)

    def __len__(self) -> int:
        return len(self.ids)

    def text(self, row: int) -> str | None:
        """Text or caption of a document, None where there is none."""
        return _written(self._texts[row]["text"])

    def texts(self) -> list[str | None]:
        """Texts and captions of all documents, read at once."""
        return [_written(text) for text in column_values(self._texts, "text")]

    def usable(self, row: int) -> bool:
        """Whether anything of a document is left in the part that is read."""
        return row not in self._wordless

    def read(self, row: int) -> DocumentInput:
        """Read a document.

        Raises:
            ValueError: If its image cannot be decoded.
            FileNotFoundError: If its image is missing.
        """
        if self.kinds[row] == "text" or self.part == "caption":
            return DocumentInput(row, self.text(row))
        caption = None if self.part == "image" else self.text(row)
        if self.features is not None:
            return DocumentInput(row, caption, features=self.features[self.ids[row]])
        return DocumentInput(row, caption, image=self.image(row))

    def image(self, row: int) -> Any:
        """Decode the image of a document; raises as :meth:`read`."""
        return decode_image(image_source(self._images[row]["image"]))


def _written(text: str | None) -> str | None:
    return text if text and text.strip() else None
