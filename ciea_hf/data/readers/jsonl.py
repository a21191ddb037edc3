"""BEIR-style JSON lines, with images.

The files are `corpus.jsonl` (id, text, image: a path in the folder), `queries.jsonl` or `queries/{split}.jsonl` (id,
text), and judgements for each split, `qrels/{split}.tsv`, `.txt` or `.jsonl` (query-id, corpus-id, score). Queries and
judgements may be missing from a corpus that is only searched.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.images import UNAVAILABLE
from ciea_hf.data.parsing import Judgement, json_lines, judgements
from ciea_hf.data.readers.base import CorpusEntry, DatasetReader, Query, document_of, in_order, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.images import EncodedImage
    from ciea_hf.data.parsing import Entry


def recognises(path: str) -> bool:
    """Return whether a folder contains a corpus."""
    return (Path(path) / "corpus.jsonl").is_file()


class JsonlReader(DatasetReader):
    """Reader of BEIR-style JSON lines."""

    @property
    def splits(self) -> list[str]:
        """Splits with judgements."""
        return list(self._judged)

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the documents of the corpus; title and text of BEIR are joined."""
        folder = Path(self.path).resolve()
        for entry in json_lines(folder / "corpus.jsonl", self.report):
            name = self._name(entry)
            if name is not None:
                image = self._image(entry, name, folder)
                parts = [entry.value.get(key) for key in ("title", "text")]
                text = " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip()) or None
                if image is not None and text is None and entry.value.get("text") is None:
                    yield CorpusEntry(entry.location, name, None, image)  # an image without a caption
                else:
                    yield document_of(entry, name, text, image, self.report)

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries of a split: its own file, or those of the common file that it judges."""
        own = Path(self.path) / "queries" / f"{split}.jsonl"
        judged = None if own.is_file() else {judgement.query for judgement in self.judgements(split)}
        for entry in json_lines(own if judged is None else Path(self.path) / "queries.jsonl", self.report):
            name = self._name(entry)
            if name is not None and (judged is None or name in judged):
                yield Query(entry.location, name, str(entry.value.get("text") or ""))

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the judgements."""
        if self._judged[split].suffix != ".jsonl":
            yield from judgements(self._judged[split], self.report)
            return
        for entry in json_lines(self._judged[split], self.report):
            query, document = (required_id(entry, key, self.report) for key in ("query-id", "corpus-id"))
            score = entry.value.get("score")
            if not isinstance(score, int):
                self.report("unreadable", entry.location, query, f"'score' must be an integer; got {score!r}")
            elif query is not None and document is not None:
                yield Judgement(entry.location, query, document, score)

    def _image(self, entry: Entry, name: str, folder: Path) -> EncodedImage | None:
        """Return the image at a path, given as a string or in the encoded form; other values are missing images."""
        value = entry.value.get("image")
        path = value.get("path") if isinstance(value, dict) else value
        if not value or (isinstance(value, dict) and not path and not value.get("bytes")):
            return None
        if isinstance(path, str) and path:
            return {"bytes": None, "path": str(folder / path)}
        self.report("unreadable", entry.location, name, f"'image' must be a path in the folder; got {str(value)[:80]}")
        return UNAVAILABLE

    def _name(self, entry: Entry) -> str | None:
        return required_id(entry, "id" if "id" in entry.value else "_id", self.report)

    @cached_property
    def _judged(self) -> dict[str, Path]:
        folder = Path(self.path) / "qrels"
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found = {file.stem: file for file in files if file.suffix in (".tsv", ".txt", ".jsonl")}
        return {split: found[split] for split in in_order(found)}
