"""EDIS: news queries over a million images with their headlines; no text documents.

`EDIS_{train,val,test}.json` and `EDIS_candidates_1m.json`, JSON lists all, beside the folder of the images. Of the
judgements 1 to 3 only 3 is relevant. Without the file of all candidates, those of the queries are the corpus.
"""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.issues import ignore
from ciea_hf.data.parsing import Judgement, json_entries
from ciea_hf.data.readers.base import CorpusEntry, DatasetReader, DuplicateFilter, Query, document_of, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.issues import IssueHandler
    from ciea_hf.data.parsing import Entry

CANDIDATES = "EDIS_candidates_1m.json"
SPLITS = {"train": "train", "dev": "val", "test": "test"}
_RELEVANT = 3
_TRIED = 1000  # paths of images, to find the folder that they start from


def recognises(path: str) -> bool:
    """Whether a folder holds EDIS's files."""
    return any(Path(path).glob("EDIS_*.json"))


class Edis(DatasetReader):
    """EDIS. The images' paths are taken from the folder itself, its parent, or the folders in either.

    The first place where one of the first thousand candidates' images is found serves for all.
    """

    @property
    def splits(self) -> list[str]:
        """Those with a file of queries."""
        return [split for split in SPLITS if self._file(split).is_file()]

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Iterate over the candidates."""
        if (Path(self.path) / CANDIDATES).is_file():
            for entry in json_entries(Path(self.path) / CANDIDATES, self.report):
                yield from self._document(entry, "id")
            return
        first = DuplicateFilter(self.report)
        for split in self.splits:
            for entry in json_entries(self._file(split), self.report):
                for candidate in self._candidates(entry, self.report):
                    for document in self._document(candidate, "candidate_id"):
                        if first(document.place, document.id, (document.text, document.image)):
                            yield document

    def queries(self, split: str) -> Iterator[Query]:
        """Iterate over the queries."""
        for entry in json_entries(self._file(split), self.report):
            name = required_id(entry, "id", self.report)
            if name is not None:
                yield Query(entry.place, name, str(entry.value.get("query") or ""))

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Iterate over the judged candidates: 1 for what EDIS scores 3, else 0."""
        for entry in json_entries(self._file(split), self.report):
            query = entry.value.get("id")
            for candidate in self._candidates(entry, self.report):
                name = required_id(candidate, "candidate_id", self.report)
                score = candidate.value.get("score")
                if not isinstance(score, int):
                    self.report("unreadable", entry.place, name, f"'score' must be a whole number; got {score!r}")
                elif name is not None:
                    yield Judgement(entry.place, str(query), name, int(score >= _RELEVANT))

    def _file(self, split: str) -> Path:
        return Path(self.path) / f"EDIS_{SPLITS[split]}.json"

    def _candidates(self, entry: Entry, report: IssueHandler) -> Iterator[Entry]:
        name = str(entry.value.get("id"))
        found = entry.value.get("candidates") or []
        if not isinstance(found, list):
            report("unreadable", entry.place, name, f"'candidates' must be a list; got {type(found).__name__}")
            return
        for candidate in found:
            if isinstance(candidate, dict):
                yield entry._replace(value=candidate, key=name)
            else:
                report("unreadable", entry.place, name, "a candidate must be an object")

    def _document(self, entry: Entry, key: str) -> Iterator[CorpusEntry]:
        name = required_id(entry, key, self.report)
        path = required_id(entry, "image", self.report)
        if name is not None and path is not None:
            image = {"bytes": None, "path": str(self._root / path)}
            yield document_of(entry, name, entry.value.get("headline"), image, self.report)

    @cached_property
    def _root(self) -> Path:
        folder = Path(self.path).resolve()
        roots = [root for base in (folder, folder.parent) for root in (base, *_folders(base))]
        tried = islice(self._paths(), _TRIED)
        return next((root for path in tried for root in roots if _is_there(root / path)), folder)

    def _paths(self) -> Iterator[str]:
        """Iterate over the paths of images, to find where they start."""
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
    except OSError:  # not ours to look at, or a name that no file can have
        return False
