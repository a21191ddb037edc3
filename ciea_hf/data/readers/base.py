"""What a reader gives: the documents, queries and judgements of a data set, one after the other.

A [`DatasetReader`] streams entries with their locations. Everything downstream is the same for every format:
[`build_dataset`] builds a [`RetrievalDataset`], `checking` looks for issues, and `export` writes parquet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.data.dataset import (
    SHARED_SPLIT,
    Qrels,
    RetrievalDataset,
    corpus_of_tables,
    corpus_table,
    queries_from_columns,
)
from ciea_hf.data.issues import IssueHandler, Location, raise_on_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import datasets
    import pyarrow as pa

    from ciea_hf.data.images import EncodedImage, TsvImages
    from ciea_hf.data.parsing import Entry, Judgement

_ROWS_AT_ONCE = 10_000


class CorpusEntry(NamedTuple):
    """A document: text or caption (None where there is none), image (encoded; None for a text)."""

    place: Location
    id: str
    text: str | None
    image: EncodedImage | None


class Query(NamedTuple):
    """A query."""

    place: Location
    id: str
    text: str


class DatasetReader(ABC):
    """A data set on disk, in one of the known formats.

    Args:
        path: Folder, file or id.
        report: Takes the faults that reading meets. By default errors are raised.

    Attributes:
        images: The TSV file that the images stand in, if the format has one.
        index: Id of an image to the offset of its line, and where the index says so; complete when the documents
            have been read.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error) -> None:
        self.path = path
        self.report = report
        self.images: TsvImages | None = None
        self.index: dict[str, tuple[int, Location]] = {}

    @property
    def name(self) -> str:
        """What the data set is called."""
        return Path(self.path).resolve().name if Path(self.path).exists() else self.path.rpartition("/")[2]

    @property
    @abstractmethod
    def splits(self) -> list[str]:
        """The splits that have queries."""

    def corpus_name(self, split: str) -> str:  # noqa: ARG002
        """Name the corpus that a split searches; one for all unless a format says otherwise."""
        return SHARED_SPLIT

    @abstractmethod
    def documents(self, corpus: str) -> Iterator[CorpusEntry]:
        """Iterate over a corpus."""

    @abstractmethod
    def queries(self, split: str) -> Iterator[Query]:
        """Iterate over the queries of a split."""

    @abstractmethod
    def judgements(self, split: str) -> Iterator[Judgement]:
        """Iterate over the judgements of a split: positives, and the source's own negatives with a score of 0.

        Negatives are given for queries that have a positive, so that a query without one stays unjudged.
        """

    def indexed(self, name: str) -> tuple[int, Location] | None:
        """Say where the line of an image begins, by the index of the TSV file, and where the index says so."""
        return self.index.get(name)

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """List the files that a corpus is read from."""
        return [file for file in sorted(Path(self.path).glob("*")) if file.is_file()]

    def corpus(self, corpus: str) -> datasets.Dataset:
        """Return a corpus as a table; images are not read."""
        return corpus_of_tables(document_tables(unique_documents(self, corpus), _ROWS_AT_ONCE))


def in_order(splits: Iterable[str]) -> list[str]:
    """Sort the names of splits: train, dev, test, then others."""
    usual = ("train", "dev", "val", "valid", "validation", "test")
    return sorted(splits, key=lambda split: (usual.index(split) if split in usual else len(usual), split))


def required_id(entry: Entry, key: str, report: IssueHandler) -> str | None:
    """Return a field of an entry as text, or report that there is none."""
    value = entry.value.get(key)
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    report("unreadable", entry.place, entry.key, f"needs {key!r}, a text or a number; got {_short(value)}")
    return None


def id_list(entry: Entry, key: str, report: IssueHandler) -> list[str]:
    """Return a field of an entry that is a list of ids; a missing one is empty."""
    value = entry.value.get(key) or []
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return [str(item) for item in value]
    report("unreadable", entry.place, entry.key, f"{key!r} must be a list of ids; got {_short(value)}")
    return []


def _short(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:80]


def document_of(entry: Entry, name: str, text: Any, image: EncodedImage | None, report: IssueHandler) -> CorpusEntry:
    """Make a document, and report what it lacks."""
    written = text if isinstance(text, str) and text.strip() else None
    if written is None and image is not None:
        report("empty-caption", entry.place, name, "the caption is empty")
    elif written is None:
        report("empty-document", entry.place, name, "the text is empty")
        written = ""
    return CorpusEntry(entry.place, name, written, image)


class DuplicateFilter:
    """Tells the first occurrence of a document from later ones, for formats that give a document again and again.

    Args:
        report: Takes a fault if a later occurrence is not the same.
    """

    def __init__(self, report: IssueHandler) -> None:
        self._seen: dict[str, int] = {}
        self._report = report

    def __call__(self, place: Location, name: str, content: Any) -> bool:
        """Whether this is the first occurrence."""
        found = hash(repr(content))
        if name not in self._seen:
            self._seen[name] = found
            return True
        if self._seen[name] != found:
            self._report("varying-document", place, name, "the document is given again, with another content")
        return False


def unique_documents(source: DatasetReader, corpus: str) -> Iterator[CorpusEntry]:
    """Iterate over the documents of a corpus; of those with one id, over the first."""
    seen: dict[str, tuple[int, int | None]] = {}
    for document in source.documents(corpus):
        path = None if document.image is None else document.image["path"]
        content = hash((document.text, path, document.image is None or document.image["bytes"]))
        if document.id not in seen:
            seen[document.id] = (content, document.place.number)
            yield document
            continue
        first, line = seen[document.id]
        kind = "repeated-document" if first == content else "duplicate-document"
        source.report(
            kind, document.place, document.id, f"the document is there already ({document.place.unit} {line})"
        )


def unique_queries(source: DatasetReader, split: str) -> Iterator[Query]:
    """Iterate over the queries of a split that have a text; of those with one id, over the first."""
    seen: dict[str, Query] = {}
    for query in source.queries(split):
        first = seen.get(query.id)
        if first is not None:
            kind = "repeated-query" if first.text == query.text else "duplicate-query"
            message = f"the query is there already ({query.place.unit} {first.place.number})"
            source.report(kind, query.place, query.id, message)
        elif not query.text.strip():
            source.report("empty-query", query.place, query.id, "the query is empty")
        else:
            seen[query.id] = query
            yield query


def qrels_of(source: DatasetReader, split: str, queries: Iterable[str], knows: Callable[[str], bool]) -> Qrels:
    """Collect the judgements of a split; the first of contradicting ones stands.

    Args:
        source: Of the data.
        split: Of the judgements.
        queries: Ids of the split's queries; judgements of others are left out.
        knows: Whether the corpus holds a document; judgements of others are left out.
    """
    qrels: Qrels = {query: {} for query in queries}
    for place, query, document, score in source.judgements(split):
        if query not in qrels:
            source.report("unknown-query", place, query, f"{document!r} is judged for a query that is not in {split}")
        elif not knows(document):
            kind = "unknown-document" if score > 0 else "unknown-negative"
            message = f"the query judges {document!r} ({score}), which the corpus lacks"
            source.report(kind, place, query, message)
        elif qrels[query].setdefault(document, score) != score:
            message = f"{document!r} is judged {score} here and {qrels[query][document]} before"
            source.report("conflicting-judgement", place, query, message)
    return {query: judged for query, judged in qrels.items() if judged}


def document_tables(documents: Iterable[CorpusEntry], size: int) -> Iterator[pa.Table]:
    """Gather documents into tables of a corpus, `size` rows each."""
    rows: list[CorpusEntry] = []
    given = False
    for document in documents:
        rows.append(document)
        if len(rows) == size:
            yield corpus_table([(row.id, row.text, row.image) for row in rows])
            rows, given = [], True
    if rows or not given:  # an empty corpus is a table, too
        yield corpus_table([(row.id, row.text, row.image) for row in rows])


def no_split(source: DatasetReader, split: str) -> ValueError:
    """Return the error for a split that a source has not."""
    if not source.splits:
        return ValueError(f"{source.path} has no split: a corpus without queries and judgements can only be searched")
    return ValueError(f"{source.path} has no split {split!r}; it has {source.splits}")


def chosen_splits(source: DatasetReader, splits: Iterable[str] | None) -> list[str]:
    """List the splits that are asked for, all if None, each once and in the order of the source.

    Raises:
        ValueError: If the source has not one of them, or none at all.
    """
    wanted = source.splits if splits is None else list(splits)
    if not source.splits:
        raise no_split(source, "")
    for split in wanted:
        if split not in source.splits:
            raise no_split(source, split)
    return [split for split in source.splits if split in wanted]


def build_dataset(source: DatasetReader, split: str | None, corpus: datasets.Dataset | None = None) -> RetrievalDataset:
    """Make the data set of one split.

    Args:
        source: Of the data.
        split: One of its splits; None for the corpus without queries.
        corpus: The split's corpus, if it is at hand already.

    Raises:
        ValueError: If there is no such split, or the source is at fault; the message names file, line and id.
        FileNotFoundError: If a file is missing.
    """
    if split is None:
        table = source.corpus(source.corpus_name(SHARED_SPLIT)) if corpus is None else corpus
        return RetrievalDataset(table, queries_from_columns([], []), {}, source.name, SHARED_SPLIT)
    if split not in source.splits:
        raise no_split(source, split)
    table = source.corpus(source.corpus_name(split)) if corpus is None else corpus
    queries = list(unique_queries(source, split))
    made = queries_from_columns([query.id for query in queries], [query.text for query in queries])
    bare = RetrievalDataset(table, made, {}, source.name, split)
    known = set(bare.corpus_ids)
    qrels = qrels_of(source, split, (query.id for query in queries), known.__contains__)
    return RetrievalDataset(table, made, qrels, source.name, split)
