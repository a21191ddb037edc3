"""WebQA as published by its authors: one JSON object by guid, in which each question contains its facts.

The files are `WebQA_train_val.json`, `imgs.tsv` and `imgs.lineidx`, in which line `image_id % 10000000` is the offset
of an image. The corpus consists of the facts of all questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.images import UNAVAILABLE, TsvImages
from ciea_hf.data.issues import IssueHandler, Location, raise_on_error
from ciea_hf.data.parsing import Judgement, json_entries, text_lines
from ciea_hf.data.readers.base import DatasetReader, DuplicateFilter
from ciea_hf.data.readers.fields import CorpusEntry, Query, document_of, query_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.images import EncodedImage
    from ciea_hf.data.parsing import Entry

QUESTIONS, IMAGES, INDEX = "WebQA_train_val.json", "imgs.tsv", "imgs.lineidx"
SPLITS = {"train": "train", "dev": "val"}
_FACTS = {"img_posFacts": 1, "txt_posFacts": 1, "img_negFacts": 0, "txt_negFacts": 0}
_IDS_PER_INDEX = 10_000_000


def recognises(path: str) -> bool:
    """Return whether a folder contains the file of questions."""
    return (Path(path) / QUESTIONS).is_file()


class OriginalWebQA(DatasetReader):
    """Reader of WebQA-Multi or WebQA-Image in the original format.

    Args:
        path: Folder of the files.
        report: Handler of issues.
        images_only: Whether to exclude text facts, and questions without an image among their positives.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error, images_only: bool = False) -> None:
        super().__init__(path, report)
        self.folder = Path(path)
        self.images_only = images_only
        self._offsets = self._read_offsets()
        if (self.folder / IMAGES).is_file():
            self.images = TsvImages(self.folder / IMAGES, (offset for offset, _ in self._offsets.values()))
        else:
            report("missing-file", Location(str(self.folder / IMAGES)), None, "file not found")

    @property
    def splits(self) -> list[str]:
        """`train` and `dev`; the test questions were published without answers."""
        return list(SPLITS)

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the facts, each at its first occurrence."""
        first = DuplicateFilter(self.report)
        for entry in self._questions():
            for key in _FACTS:
                for name, fact in self._facts(entry, key):
                    if key.startswith("txt"):
                        if first(entry.location, name, fact.get("fact")):
                            yield document_of(entry, name, fact.get("fact"), None, self.report)
                    elif first(entry.location, name, fact.get("caption")):
                        yield document_of(entry, name, fact.get("caption"), self._image(entry, name), self.report)

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the questions of a split."""
        for entry in self._questions(split):
            query = query_of(entry, entry.key or "", entry.value.get("Q"), self.report)
            if query is not None:
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the facts, positive and negative."""
        for entry in self._questions(split):
            found = [(name, score) for key, score in _FACTS.items() for name, _ in self._facts(entry, key)]
            if any(score > 0 for _, score in found):
                yield from (Judgement(entry.location, entry.key or "", name, score) for name, score in found)

    def indexed(self, name: str) -> tuple[int, Location] | None:
        """Return offset and index location of an image's line, also for images that no fact refers to."""
        return self._offsets.get(int(name) % _IDS_PER_INDEX) if name.isdecimal() else None

    def _questions(self, split: str | None = None) -> Iterator[Entry]:
        wanted = None if split is None else SPLITS[split]
        for entry in json_entries(self.folder / QUESTIONS, self.report):
            if wanted is not None and entry.value.get("split") != wanted:
                continue
            if split is None or not self.images_only or entry.value.get("img_posFacts"):
                yield entry

    def _facts(self, entry: Entry, key: str) -> Iterator[tuple[str, dict[str, object]]]:
        if self.images_only and key.startswith("txt"):
            return
        for fact in entry.value.get(key) or []:
            name = fact.get("snippet_id" if key.startswith("txt") else "image_id") if isinstance(fact, dict) else None
            if name is None:
                self.report("unreadable", entry.location, entry.key, f"a fact in {key!r} has no id")
            else:
                yield str(name), fact

    def _image(self, entry: Entry, name: str) -> EncodedImage:
        number = int(name) % _IDS_PER_INDEX if name.isdecimal() else -1
        if self.images is None or number not in self._offsets:
            self.report("image-not-indexed", entry.location, name, f"the image is missing from {INDEX}")
            return UNAVAILABLE
        self.index[name] = self._offsets[number]  # the index has no ids; the facts assign them
        return self.images.encoded(name, self._offsets[number][0])

    def _read_offsets(self) -> dict[int, tuple[int, Location]]:
        """Read the index: offset by line number, from 0."""
        found = {}
        for location, line in text_lines(self.folder / INDEX, self.report):
            if line.isdecimal():
                found[(location.number or 1) - 1] = (int(line), location)
            else:
                self.report("unreadable", location, None, f"a line must be an offset; got {line[:80]!r}")
        return found
