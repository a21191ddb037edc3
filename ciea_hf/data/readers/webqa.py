"""WebQA in the format of UniVL-DR and MARVEL, which other data sets also use.

The files are `train.json`, `dev.json`, `test.json`, `all_docs.json`, `all_imgs.json` (all JSON lines), `imgs.tsv` with
its index `imgs.lineidx.new`, and optionally judgements in `{split}_qrels.txt`. The corpus of WebQA-Multi consists of
texts and images, that of WebQA-Image of images only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.images import UNAVAILABLE, TsvImages, read_index
from ciea_hf.data.issues import IssueHandler, Location, raise_on_error
from ciea_hf.data.judgements import judgements
from ciea_hf.data.parsing import Judgement, json_lines
from ciea_hf.data.readers.base import DatasetReader
from ciea_hf.data.readers.fields import CorpusEntry, Query, document_of, id_list, query_of, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.parsing import Entry

CAPTIONS, TEXTS, IMAGES, INDEX = "all_imgs.json", "all_docs.json", "imgs.tsv", "imgs.lineidx.new"
SPLITS = ("train", "dev", "test")
_NEGATIVES = ("img_negFacts", "txt_negFacts", "all_negFacts")


def recognises(path: str) -> bool:
    """Return whether a folder contains at least two of captions, a TSV file of images, and its index."""
    return sum((Path(path) / name).is_file() for name in (CAPTIONS, IMAGES, INDEX)) > 1


class WebQA(DatasetReader):
    """Reader of WebQA-Multi or WebQA-Image.

    Args:
        path: Folder of the files.
        report: Handler of issues.
        images_only: Whether to exclude text documents, and queries answered by one.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error, images_only: bool = False) -> None:
        super().__init__(path, report)
        self.folder = Path(path)
        self.images_only = images_only
        self.index = read_index(self.folder / INDEX, report)
        if (self.folder / IMAGES).is_file():
            self.images = TsvImages(self.folder / IMAGES, (offset for offset, _ in self.index.values()))
        else:
            report("missing-file", Location(str(self.folder / IMAGES)), None, "file not found")

    @property
    def splits(self) -> list[str]:
        """Splits with a file of queries."""
        return [split for split in SPLITS if (self.folder / f"{split}.json").is_file()]

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the text documents, then the images with their captions."""
        if not self.images_only and (self.folder / TEXTS).is_file():
            for entry in json_lines(self.folder / TEXTS, self.report):
                name = required_id(entry, "snippet_id", self.report)
                if name is not None:
                    yield document_of(entry, name, entry.value.get("fact"), None, self.report)
        for entry in json_lines(self.folder / CAPTIONS, self.report):
            name = required_id(entry, "image_id", self.report)
            if name is None:
                continue
            image = UNAVAILABLE
            if name not in self.index:
                self.report("image-not-indexed", entry.location, name, f"the image is missing from {INDEX}")
            elif self.images is not None:
                image = self.images.encoded(name, self.index[name][0])
            yield document_of(entry, name, entry.value.get("caption"), image, self.report)

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the questions."""
        for name, entry in self._entries(split):
            query = query_of(entry, name, entry.value.get("Q"), self.report)
            if query is not None:
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the positives (from the file of judgements, if it exists), then the data set's negatives."""
        file = self.folder / f"{split}_qrels.txt"
        facts: dict[str, tuple[Location, dict[str, None]]] = {}
        for query, entry in self._entries(split):  # the first query of each id counts
            facts.setdefault(query, (entry.location, self._positives(entry)))
        if file.is_file():
            yield from self._judged(file, facts)
        else:
            for query, (location, positives) in facts.items():
                yield from (Judgement(location, query, name, 1) for name in positives)
        for query, entry in self._entries(split):
            location, positives = facts[query]
            for name in self._negatives(entry) if positives and entry.location == location else ():
                if name not in positives:
                    yield Judgement(entry.location, query, name, 0)

    def _judged(self, file: Path, facts: dict[str, tuple[Location, dict[str, None]]]) -> Iterator[Judgement]:
        """Yield the judgements of the file, and report where they differ from the queries' positives."""
        relevant: dict[str, set[str]] = {}
        for judgement in judgements(file, self.report):
            if self.images_only and not (judgement.query in facts and judgement.document in self.index):
                continue
            if judgement.score > 0:
                relevant.setdefault(judgement.query, set()).add(judgement.document)
            yield judgement
        for query, (location, positives) in facts.items():
            other = relevant.get(query, set()).symmetric_difference(positives)
            if other:
                message = f"{file.name} and the query disagree whether {min(other)!r} is relevant"
                self.report("disagreement", location, query, message)

    def _entries(self, split: str) -> Iterator[tuple[str, Entry]]:
        for entry in json_lines(self.folder / f"{split}.json", self.report):
            name = required_id(entry, "qid", self.report)
            if name is not None and (not self.images_only or entry.value.get("img_posFacts")):
                yield name, entry

    def _positives(self, entry: Entry) -> dict[str, None]:
        found = id_list(entry, "img_posFacts", self.report)
        return dict.fromkeys(found if self.images_only else found + id_list(entry, "txt_posFacts", self.report))

    def _negatives(self, entry: Entry) -> dict[str, None]:
        found = [name for key in _NEGATIVES for name in id_list(entry, key, self.report)]
        return dict.fromkeys(name for name in found if not self.images_only or name in self.index)
