"""Corruption of captions, to measure how much a system depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.retrieval.records import document_records

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset


def corrupt_captions(
    dataset: RetrievalDataset, drop: float = 0.0, swap: float = 0.0, seed: int = 0
) -> list[str | None]:
    """Remove the captions of images, or exchange them between images.

    The images are chosen by the seed. A smaller share is a subset of a larger one, so that curves over shares are
    smooth. Captions are exchanged before they are removed. Text documents are unchanged.

    Args:
        dataset: Data set, which is not modified.
        drop: Share of captioned images that lose their caption, from 0 to 1.
        swap: Share of captioned images that exchange their captions in a cycle, from 0 to 1; at least two images unless
            it is 0. If captions repeat, an image may receive an equal caption.
        seed: Random seed.

    Returns:
        The texts of all documents by position, for [`DocumentView`].

    Raises:
        ValueError: If a share is not between 0 and 1.
    """
    for name, share in (("drop", drop), ("swap", swap)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"`{name}` must be between 0 and 1; got {share}")
    records = document_records(dataset)
    texts = [record.text for record in records]
    captioned = [position for position, record in enumerate(records) if record.kind == "image" and record.text]
    rng = np.random.default_rng(seed)
    for_swap, for_drop = rng.permutation(captioned).tolist(), rng.permutation(captioned).tolist()
    swapped = for_swap[: max(round(swap * len(captioned)), 2 if swap else 0)]
    for position, other in zip(swapped, swapped[1:] + swapped[:1], strict=True):
        texts[position] = records[other].text
    for position in for_drop[: round(drop * len(captioned))]:
        texts[position] = None
    return texts
