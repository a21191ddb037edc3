"""Base class of readers, which stream the documents, queries and judgements of a data set.

A [`DatasetReader`] streams entries with their locations. Everything downstream is the same for every format:
[`build_dataset`] builds a [`RetrievalDataset`], `checking` looks for issues, and `export` writes parquet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.data.dataset import (
    METADATA_COLUMN,
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

    from ciea_hf.data.images import TsvImages
    from ciea_hf.data.parsing import Judgement
    from ciea_hf.data.readers.fields import CorpusEntry, Query

_ROWS_AT_ONCE = 10_000


class DatasetReader(ABC):
    """Reader of a data set in one of the supported formats.

    Args:
        path: Folder, file or Hub id.
        report: Handler of issues; by default errors are raised.

    Attributes:
        image_root: Folder that contains the images; the data set's own if `None`.
        images: TSV file of the images, if the format has one.
        index: Offset and location of each image's line, by id; complete after the documents have been read.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error) -> None:
        self.path = path
        self.report = report
        self.image_root: Path | None = None
        self.images: TsvImages | None = None
        self.index: dict[str, tuple[int, Location]] = {}

    @property
    def name(self) -> str:
        """Name of the data set."""
        return Path(self.path).resolve().name if Path(self.path).exists() else self.path.rpartition("/")[2]

    @property
    @abstractmethod
    def splits(self) -> list[str]:
        """Splits that have queries."""

    def corpus_name(self, split: str) -> str:  # noqa: ARG002
        """Return the name of a split's corpus; the same for all splits unless a format overrides this."""
        return SHARED_SPLIT

    @abstractmethod
    def documents(self, corpus: str) -> Iterator[CorpusEntry]:
        """Yield the documents of a corpus."""

    def has_metadata(self, corpus: str) -> bool:  # noqa: ARG002
        """Return whether documents of a corpus have further fields; only some formats do."""
        return False

    @abstractmethod
    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries of a split."""

    @abstractmethod
    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the judgements of a split: positives, and the data set's own negatives with a score of 0.

        Negatives are included only for queries with a positive, so that a query without any stays unjudged.
        """

    def indexed(self, name: str) -> tuple[int, Location] | None:
        """Return the offset of an image's line in the TSV file, and the location of its index entry."""
        return self.index.get(name)

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """Return the files of a corpus."""
        return [file for file in sorted(Path(self.path).glob("*")) if file.is_file()]

    def corpus(self, corpus: str) -> datasets.Dataset:
        """Return a corpus as a table, without reading images."""
        metadata: list[str | None] = []

        def documents() -> Iterator[CorpusEntry]:
            for document in unique_documents(self, corpus):
                metadata.append(document.metadata)
                yield document

        table = corpus_of_tables(document_tables(documents(), _ROWS_AT_ONCE))
        return table.add_column(METADATA_COLUMN, metadata) if any(metadata) else table


def in_order(splits: Iterable[str]) -> list[str]:
    """Sort the names of splits: train, dev, test, then others."""
    usual = ("train", "dev", "val", "valid", "validation", "test")
    return sorted(splits, key=lambda split: (usual.index(split) if split in usual else len(usual), split))


class DuplicateFilter:
    """Distinguishes the first occurrence of a document from later ones, for formats that repeat documents.

    Args:
        report: Handler that receives an issue if a later occurrence differs.
    """

    def __init__(self, report: IssueHandler) -> None:
        self._seen: dict[str, int] = {}
        self._report = report

    def __call__(self, location: Location, name: str, content: Any) -> bool:
        """Return whether this is the first occurrence."""
        found = hash(repr(content))
        if name not in self._seen:
            self._seen[name] = found
            return True
        if self._seen[name] != found:
            self._report("varying-document", location, name, "the document repeats with different content")
        return False


def unique_documents(reader: DatasetReader, corpus: str) -> Iterator[CorpusEntry]:
    """Yield the documents of a corpus, for each id only the first."""
    yield from without_repetitions(reader.documents(corpus), reader.report)


def without_repetitions(documents: Iterable[CorpusEntry], report: IssueHandler) -> Iterator[CorpusEntry]:
    """Yield documents, for each id only the first."""
    seen: dict[str, tuple[int, int | None]] = {}
    for document in documents:
        path = None if document.image is None else document.image["path"]
        content = hash((document.text, path, document.image is None or document.image["bytes"]))
        if document.id not in seen:
            seen[document.id] = (content, document.location.number)
            yield document
            continue
        first, line = seen[document.id]
        kind = "repeated-document" if first == content else "duplicate-document"
        report(kind, document.location, document.id, f"the document already exists ({document.location.unit} {line})")


def unique_queries(reader: DatasetReader, split: str) -> Iterator[Query]:
    """Yield the queries of a split that have a text, for each id only the first."""
    seen: dict[str, Query] = {}
    for query in reader.queries(split):
        first = seen.get(query.id)
        if first is not None:
            kind = "repeated-query" if first.text == query.text else "duplicate-query"
            message = f"the query already exists ({query.location.unit} {first.location.number})"
            reader.report(kind, query.location, query.id, message)
        elif not query.text.strip():
            reader.report("empty-query", query.location, query.id, "the query is empty")
        else:
            seen[query.id] = query
            yield query


def qrels_of(reader: DatasetReader, split: str, queries: Iterable[str], knows: Callable[[str], bool]) -> Qrels:
    """Collect the judgements of a split; the first of contradicting ones is used.

    Args:
        reader: Reader of the data set.
        split: Split of the judgements.
        queries: Ids of the split's queries; judgements of other queries are ignored.
        knows: Function that tells whether a document is in the corpus; other judgements are ignored.
    """
    qrels: Qrels = {query: {} for query in queries}
    for location, query, document, score in reader.judgements(split):
        if query not in qrels:
            reader.report(
                "unknown-query", location, query, f"{document!r} is judged for a query that is not in {split}"
            )
        elif not knows(document):
            kind = "unknown-document" if score > 0 else "unknown-negative"
            message = f"the query judges {document!r} ({score}), which is not in the corpus"
            reader.report(kind, location, query, message)
        elif qrels[query].setdefault(document, score) != score:
            message = f"{document!r} has judgement {score} here and {qrels[query][document]} before"
            reader.report("conflicting-judgement", location, query, message)
    return {query: judged for query, judged in qrels.items() if judged}


def document_tables(documents: Iterable[CorpusEntry], size: int, with_metadata: bool = False) -> Iterator[pa.Table]:
    """Yield documents as tables of a corpus, with `size` rows each, and a column of their metadata if requested."""

    def table() -> pa.Table:
        metadata = [row.metadata for row in rows] if with_metadata else None
        return corpus_table([(row.id, row.text, row.image) for row in rows], metadata)

    rows: list[CorpusEntry] = []
    given = False
    for document in documents:
        rows.append(document)
        if len(rows) == size:
            yield table()
            rows, given = [], True
    if rows or not given:  # an empty corpus is one empty table
        yield table()


def no_split(reader: DatasetReader, split: str) -> ValueError:
    """Return the error for a split that does not exist."""
    if not reader.splits:
        return ValueError(f"{reader.path} has no splits: a corpus without queries and judgements can only be searched")
    return ValueError(f"{reader.path} has no split {split!r}; it has {reader.splits}")


def chosen_splits(reader: DatasetReader, splits: Iterable[str] | None) -> list[str]:
    """Return the requested splits (all if `None`), each once, in the order of the reader.

    Raises:
        ValueError: If a split does not exist, or there are none.
    """
    wanted = reader.splits if splits is None else list(splits)
    if not reader.splits:
        raise no_split(reader, "")
    for split in wanted:
        if split not in reader.splits:
            raise no_split(reader, split)
    return [split for split in reader.splits if split in wanted]


def build_dataset(reader: DatasetReader, split: str | None, corpus: datasets.Dataset | None = None) -> RetrievalDataset:
    """Build the data set of one split.

    Args:
        reader: Reader of the data set.
        split: Split, or `None` for the corpus without queries.
        corpus: Corpus of the split, if it is already loaded.

    Raises:
        ValueError: If the split does not exist, or the data are invalid; the message names file, line and id.
        FileNotFoundError: If a file is missing.
    """
    if split is None:
        table = reader.corpus(reader.corpus_name(SHARED_SPLIT)) if corpus is None else corpus
        return RetrievalDataset(table, queries_from_columns([], []), {}, reader.name, SHARED_SPLIT)
    if split not in reader.splits:
        raise no_split(reader, split)
    table = reader.corpus(reader.corpus_name(split)) if corpus is None else corpus
    queries = list(unique_queries(reader, split))
    made = queries_from_columns([query.id for query in queries], [query.text for query in queries])
    bare = RetrievalDataset(table, made, {}, reader.name, split)
    known = set(bare.corpus_ids)
    qrels = qrels_of(reader, split, (query.id for query in queries), known.__contains__)
    return RetrievalDataset(table, made, qrels, reader.name, split)
