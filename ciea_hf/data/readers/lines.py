"""Training lines: each holds a query with its positive and negative texts, as training libraries exchange them.

Files of JSON lines, parquet files or folders of `datasets` (`save_to_disk`), one per split (`train.jsonl`) or a single
one, which is the split `train`. The keys are those of FlagEmbedding (`query`, `pos`, `neg`), tevatron (`query`,
`positive_passages`, `negative_passages`) or sentence-transformers (`anchor` or `query`, `positive`, `negative`). Texts
without an id are known by the hash of their content, so that equal texts are one document.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.data.issues import ignore
from ciea_hf.data.parsing import Judgement, json_entries, json_lines
from ciea_hf.data.readers.base import DatasetReader, DuplicateFilter, in_order
from ciea_hf.data.readers.fields import CorpusEntry, Query, document_of, query_of, short
from ciea_hf.data.readers.tables import columns_of, is_saved, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.parsing import Entry

QUERIES = ("query", "anchor")
POSITIVES = ("pos", "positive", "positives", "positive_passages")
NEGATIVES = ("neg", "negative", "negatives", "negative_passages")
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")


def recognises(path: str) -> bool:
    """Return whether a path is a file of training lines, or a folder of such files."""
    return any(_has_columns(file) for file in _files(Path(path)).values())


def _files(path: Path) -> dict[str, Path]:
    """Return the files by split."""
    if path.is_file():
        return {"train": path} if path.name.endswith(SUFFIXES) else {}
    if is_saved(path):
        return {"train": path}
    found = {}
    for file in sorted(path.iterdir()) if path.is_dir() else []:
        suffix = next((suffix for suffix in SUFFIXES if file.name.endswith(suffix)), None)
        if not file.name.startswith(".") and (is_saved(file) or (suffix and file.is_file())):
            found[file.name.removesuffix(suffix or "")] = file
    return found if len(found) != 1 else {"train": next(iter(found.values()))}


def _has_columns(file: Path) -> bool:
    """Return whether the first entry has a query and positives."""
    try:
        if file.is_dir() or file.suffix == ".parquet":
            keys = set(columns_of(file))
        else:
            keys = set(next((entry.value for entry in _json(file, ignore)), {}))
    except (OSError, ValueError):
        return False
    return bool(keys & set(QUERIES) and keys & set(POSITIVES))


def _json(file: Path, report: Any) -> Iterator[Entry]:
    yield from json_entries(file, report) if file.suffix == ".json" else json_lines(file, report)


class LinesReader(DatasetReader):
    """Reader of training lines."""

    @property
    def splits(self) -> list[str]:
        """Splits with a file."""
        return in_order(self._by_split)

    @property
    def name(self) -> str:
        """Name of the file or folder, without suffix."""
        return Path(self.path).name.partition(".")[0] or super().name

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the texts of all splits, each at its first occurrence."""
        first = DuplicateFilter(self.report)
        for split in self.splits:
            for entry in self._entries(split):
                for keys in (POSITIVES, NEGATIVES):
                    for name, text in self._passages(entry, keys):
                        if first(entry.location, name, text):
                            yield document_of(entry, name, text, None, self.report)

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries."""
        for entry in self._entries(split):
            query = query_of(entry, self._query_id(entry), _first(entry, QUERIES), self.report)
            if query is not None:
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the positives, then the negatives."""
        for entry in self._entries(split):
            positives = dict(self._passages(entry, POSITIVES))
            query = self._query_id(entry)
            yield from (Judgement(entry.location, query, name, 1) for name in positives)
            for name, _ in self._passages(entry, NEGATIVES) if positives else ():
                if name not in positives:
                    yield Judgement(entry.location, query, name, 0)

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """Return all files."""
        return list(self._by_split.values())

    def _entries(self, split: str) -> Iterator[Entry]:
        file = self._by_split[split]
        if file.is_dir() or file.suffix == ".parquet":
            yield from rows([file], columns_of(file), self.report)
        else:
            yield from _json(file, self.report)

    def _query_id(self, entry: Entry) -> str:
        """Return the id of a query: the given one, or its text's hash, since a query may have several lines."""
        given = _first(entry, ("query_id", "query-id", "qid"))
        return str(given) if isinstance(given, str | int) else "q" + _hash(str(_first(entry, QUERIES)))

    def _passages(self, entry: Entry, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """Yield id and text of the texts under a key."""
        found = _first(entry, keys)
        for passage in found if isinstance(found, list) else [] if found is None else [found]:
            if isinstance(passage, str):
                yield "d" + _hash(passage), passage
            elif isinstance(passage, dict) and isinstance(passage.get("text"), str):
                parts = [passage.get("title"), passage["text"]]
                text = " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
                given = next((passage[key] for key in ("docid", "doc_id", "id") if passage.get(key) is not None), None)
                yield str(given) if given is not None else "d" + _hash(text), text
            else:
                message = f"{keys[0]!r} must hold texts, or objects with 'text'; got {short(passage)}"
                self.report("unreadable", entry.location, self._query_id(entry), message)

    @cached_property
    def _by_split(self) -> dict[str, Path]:
        return {split: file for split, file in _files(Path(self.path)).items() if _has_columns(file)}


def _first(entry: Entry, keys: tuple[str, ...]) -> Any:
    return next((entry.value[key] for key in keys if entry.value.get(key) is not None), None)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
