"""The formats that can be read, and the one door to them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ciea_hf.data.readers.own import read_own_form, recognises_own_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from ciea_hf.data.dataset import RetrievalDataset


class Format(NamedTuple):
    """A way to read retrieval data: how to recognise a path, and how to read one split of it."""

    recognises: Callable[[str], bool]
    read: Callable[[str, str], RetrievalDataset]


FORMATS: dict[str, Format] = {"parquet": Format(recognises_own_form, read_own_form)}


def load_retrieval_dataset(path_or_id: str | Path, split: str = "test", format: str = "auto") -> RetrievalDataset:  # noqa: A002
    """Load one split of a retrieval data set.

    Args:
        path_or_id: A folder, or the id of a data set on the Hugging Face Hub.
        split: ``"train"``, ``"dev"`` or ``"test"``, or whatever the data set calls its splits.
        format: A key of :data:`FORMATS`, or ``"auto"``: the first that recognises the path.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the format is unknown, none recognises the path, or the data are not in the form it asks for.
    """
    path = str(path_or_id)
    if format != "auto":
        if format not in FORMATS:
            raise ValueError(f"format must be 'auto' or one of {sorted(FORMATS)}, got {format!r}")
        return FORMATS[format].read(path, split)
    for candidate in FORMATS.values():
        if candidate.recognises(path):
            return candidate.read(path, split)
    if not Path(path).exists():
        raise FileNotFoundError(
            f"path_or_id: there is nothing at {path!r}, and it is no data set id such as 'owner/name'"
        )
    raise ValueError(f"path_or_id: {path!r} is in none of the known forms {sorted(FORMATS)}; name one with `format`")
