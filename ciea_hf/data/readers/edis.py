"""EDIS: news queries over a million images with their headlines; no text documents.

The files are `EDIS_{train,val,test}.json` and `EDIS_candidates_1m.json`, all JSON lists, next to the folder of images.
Of the judgements 1 to 3 only 3 is relevant. Without the file of all candidates, the corpus consists of the queries'
candidates.
"""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.issues import ignore
from ciea_hf.data.parsing import Judgement, integer, json_entries
from ciea_hf.data.readers.base import DatasetReader, DuplicateFilter
from ciea_hf.data.readers.fields import CorpusEntry, Query, document_of, local_image, query_of, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.issues import IssueHandler
    from ciea_hf.data.parsing import Entry

CANDIDATES = "EDIS_candidates_1m.json"
SPLITS = {"train": "train", "dev": "val", "test": "test"}
_RELEVANT = 3
_TRIED = 1000  # number of image paths that are tried to find their root folder


def recognises(path: str) -> bool:
    """Return whether a folder contains the files of EDIS."""
    return any(Path(path).glob("EDIS_*.json"))


class Edis(DatasetReader):
    """Reader of EDIS.

    Image paths are relative to the folder itself, its parent, or a folder in either. The first of these that contains
    an image of the first thousand candidates is used for all images.
    """

    @property
    def splits(self) -> list[str]:
        """Splits with a file of queries."""
        return [split for split in SPLITS if self._file(split).is_file()]

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the candidates."""
        if (Path(self.path) / CANDIDATES).is_file():
            for entry in json_entries(Path(self.path) / CANDIDATES, self.report):
                yield from self._document(entry, "id")
            return
        first = DuplicateFilter(self.report)
        for split in self.splits:
            for entry in json_entries(self._file(split), self.report):
                for candidate in self._candidates(entry, self.report):
                    for document in self._document(candidate, "candidate_id"):
                        if first(document.location, document.id, (document.text, document.image)):
                            yield document

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries."""
        for entry in json_entries(self._file(split), self.report):
            name = required_id(entry, "id", self.report)
            query = None if name is None else query_of(entry, name, entry.value.get("query"), self.report)
            if query is not None:
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the judged candidates: 1 for a judgement of 3 in EDIS, else 0."""
        for entry in json_entries(self._file(split), self.report):
            query = entry.value.get("id")
            for candidate in self._candidates(entry, self.report):
                name = required_id(candidate, "candidate_id", self.report)
                score = candidate.value.get("score")
                grade = integer(score)
                if grade is None:
                    self.report("unreadable", entry.location, name, f"'score' must be an integer; got {score!r}")
                elif name is not None:
                    yield Judgement(entry.location, str(query), name, int(grade >= _RELEVANT))

    def _file(self, split: str) -> Path:
        return Path(self.path) / f"EDIS_{SPLITS[split]}.json"

    def _candidates(self, entry: Entry, report: IssueHandler) -> Iterator[Entry]:
        name = str(entry.value.get("id"))
        found = entry.value.get("candidates") or []
        if not isinstance(found, list):
            report("unreadable", entry.location, name, f"'candidates' must be a list; got {type(found).__name__}")
            return
        for candidate in found:
            if isinstance(candidate, dict):
                yield entry._replace(value=candidate, key=name)
            else:
                report("unreadable", entry.location, name, "a candidate must be an object")

    def _document(self, entry: Entry, key: str) -> Iterator[CorpusEntry]:
        name = required_id(entry, key, self.report)
        path = required_id(entry, "image", self.report)
        if name is not None and path is not None:
            image = local_image(entry, name, self._root, path, self.report)
            yield document_of(entry, name, entry.value.get("headline"), image, self.report)

    @cached_property
    def _root(self) -> Path:
        folder = Path(self.path).resolve()
        roots = [root for base in (folder, folder.parent) for root in (base, *_folders(base))]
        tried = islice(self._paths(), _TRIED)
        return next((root for path in tried for root in roots if _is_there(root / path)), folder)

    def _paths(self) -> Iterator[str]:
        """Yield image paths, to find their root folder."""
        if (Path(self.path) / CANDIDATES).is_file():
            for entry in json_entries(Path(self.path) / CANDIDATES, ignore):
                if isinstance(path := entry.value.get("image"), str):
                    yield path
        for split in self.splits:
            for entry in json_entries(self._file(split), ignore):
                for candidate in self._candidates(entry, ignore):
                    if isinstance(path := candidate.value.get("image"), str):
                        yield path


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(child for child in base.iterdir() if child.is_dir())
    except PermissionError:
        return []


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # no permission, or an invalid file name
        return False
