"""Images of documents by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciea_hf.retrieval.documents import DocumentView

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from ciea_hf.data import RetrievalDataset


def image_lookup(dataset: RetrievalDataset) -> Callable[[str], Image.Image | None]:
    """Return a function that decodes the image of a document by id; `None` without one, or if it cannot be decoded."""
    view = DocumentView(dataset, "image", on_broken_image="skip")
    positions = {document: position for position, document in enumerate(view.ids)}

    def image_of(document: str) -> Image.Image | None:
        position = positions.get(document)
        if position is None or view.kinds[position] == "text":
            return None
        try:
            return view.image(position)
        except (ValueError, FileNotFoundError) as error:
            view.report_broken(position, error)
            return None

    return image_of
