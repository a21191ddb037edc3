"""Spoil captions on purpose: how much does a system lean on them?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.retrieval.documents import document_records

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset


def corrupt_captions(
    dataset: RetrievalDataset, drop: float = 0.0, swap: float = 0.0, seed: int = 0
) -> list[str | None]:
    """Take captions away from pictures, or give them those of other pictures.

    The chosen pictures follow from the seed, and those of a smaller share are among those of a larger one, so that a
    curve over shares is smooth. Swapping comes first. Text documents stay as they are.

    Args:
        dataset: Its corpus is read; it is not changed.
        drop: Share of captioned pictures that lose their caption, from 0 to 1.
        swap: Share of captioned pictures that pass their captions around in a circle, from 0 to 1; two at least, unless
            it is 0. Of captions that occur several times a picture may get the same one back.
        seed: Of the choice.

    Returns:
        The texts of all documents by position, for [`DocumentView`].

    Raises:
        ValueError: If a share lies outside 0 to 1.
    """
    for name, share in (("drop", drop), ("swap", swap)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} must lie between 0 and 1; got {share}")
    records = document_records(dataset)
    texts = [record.text for record in records]
    captioned = [place for place, record in enumerate(records) if record.kind == "image" and record.text]
    rng = np.random.default_rng(seed)
    for_swap, for_drop = rng.permutation(captioned).tolist(), rng.permutation(captioned).tolist()
    swapped = for_swap[: max(round(swap * len(captioned)), 2 if swap else 0)]
    for place, giver in zip(swapped, swapped[1:] + swapped[:1], strict=True):
        texts[place] = records[giver].text
    for place in for_drop[: round(drop * len(captioned))]:
        texts[place] = None
    return texts
