"""BEIR-style JSON lines, with images.

The files are `corpus.jsonl` (id, text, image: a path in the folder), `queries.jsonl` or `queries/{split}.jsonl` (id,
text), and judgements for each split, `qrels/{split}.tsv`, `.txt` or `.jsonl` (query-id, corpus-id, score). They may be
compressed (`.gz`), and corpus and queries may be one JSON list each (`.json`). Queries and judgements may be missing
from a corpus that is only searched.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.images import UNAVAILABLE
from ciea_hf.data.judgements import judgements
from ciea_hf.data.parsing import json_entries, json_lines
from ciea_hf.data.readers.base import DatasetReader, in_order
from ciea_hf.data.readers.fields import CorpusEntry, Query, local_image, only_text_query, own_document, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.images import EncodedImage
    from ciea_hf.data.parsing import Entry, Judgement

NOT_SPLITS = ("readme", "license", "licence", "notes")  # texts that may lie beside judgements


def recognises(path: str) -> bool:
    """Return whether a folder contains a corpus."""
    return _file(Path(path), "corpus").is_file()


def _file(folder: Path, name: str) -> Path:
    """Return a file of JSON lines, compressed JSON lines, or a JSON list; the first name if none exists."""
    candidates = [folder / f"{name}{suffix}" for suffix in (".jsonl", ".jsonl.gz", ".json")]
    return next((file for file in candidates if file.is_file()), candidates[0])


class JsonlReader(DatasetReader):
    """Reader of BEIR-style JSON lines."""

    @property
    def splits(self) -> list[str]:
        """Splits with judgements."""
        return list(self._judged)

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the documents of the corpus; title and text of BEIR are joined."""
        file = _file(Path(self.path), "corpus")
        read = json_entries if file.suffix == ".json" else json_lines
        for entry in read(file, self.report):
            name = self._name(entry)
            if name is not None:
                yield own_document(entry, name, self._image(entry, name), self.report)

    def has_metadata(self, corpus: str) -> bool:
        """Return whether a document has further fields, which only its line tells."""
        return any(document.metadata for document in self.documents(corpus))

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries of a split: its own file, or those of the common file that it judges."""
        own = _file(Path(self.path) / "queries", split)
        judged = None if own.is_file() else {judgement.query for judgement in self.judgements(split)}
        file = own if judged is None else _file(Path(self.path), "queries")
        read = json_entries if file.suffix == ".json" else json_lines
        for entry in read(file, self.report):
            name = self._name(entry)
            query = None if name is None else only_text_query(entry, name, self.report)
            if query is not None and (judged is None or name in judged):
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the judgements."""
        yield from judgements(self._judged[split], self.report)

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """Return the file of the corpus."""
        return [_file(Path(self.path), "corpus")]

    def _image(self, entry: Entry, name: str) -> EncodedImage | None:
        """Return the image at a path, given as a string or in the encoded form; other values are missing images."""
        value = entry.value.get("image")
        path = value.get("path") if isinstance(value, dict) else value
        if not value or (isinstance(value, dict) and not any(value.values())):
            return None
        if isinstance(path, str) and path:
            return local_image(entry, name, self.image_root or Path(self.path).resolve(), path, self.report)
        self.report("unreadable", entry.location, name, f"'image' must be a path in the folder; got {str(value)[:80]}")
        return UNAVAILABLE

    def _name(self, entry: Entry) -> str | None:
        keys = ("id", "_id", "docid", "doc_id", "query_id")
        return required_id(entry, next((key for key in keys if key in entry.value), "id"), self.report)

    @cached_property
    def _judged(self) -> dict[str, Path]:
        folder = Path(self.path) / "qrels"
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found = {}
        for file in files:
            name, _, kind = file.name.removesuffix(".gz").rpartition(".")
            if kind in ("tsv", "txt", "jsonl") and not name.startswith(".") and name.lower() not in NOT_SPLITS:
                found[name] = file
        return {split: found[split] for split in in_order(found)}
