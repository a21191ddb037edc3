"""Write a source in the own form, as it is or without its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciea_hf.data.dataset import SHARED_SPLIT, queries_from_columns
from ciea_hf.data.export import ROWS_PER_BATCH, dataset_writer
from ciea_hf.data.issues import ignore
from ciea_hf.data.readers.base import chosen_splits, document_tables, qrels_of, unique_documents, unique_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ciea_hf.data.check_result import CheckResult
    from ciea_hf.data.readers.base import CorpusEntry, DatasetReader


def convert_dataset(source: DatasetReader, folder: str | Path, splits: Iterable[str] | None = None) -> dict[str, int]:
    """Write a data set in the own form, never more than a few hundred documents of it in memory.

    Args:
        source: The data set.
        folder: Where to; an older folder is replaced.
        splits: Those to write; all if None.

    Returns:
        How many documents of each corpus and queries of each split were written.

    Raises:
        ValueError: If the source is at fault, or an image's file cannot be read; the message names file, line and id.
        FileNotFoundError: If a file is missing.
    """
    chosen = chosen_splits(source, splits)
    if not chosen:
        raise ValueError(f"{source.path} has no split: no queries are there")
    counts: dict[str, int] = {}
    known: dict[str, set[str]] = {}
    with dataset_writer(folder, f"# {source.name}\n\nConverted by `ciea data convert`.") as writer:
        for corpus in dict.fromkeys(map(source.corpus_name, chosen)):
            known[corpus] = set()
            documents = _noting(unique_documents(source, corpus), known[corpus])
            writer.write_corpus(corpus, document_tables(documents, ROWS_PER_BATCH))
            counts[_title(corpus)] = len(known[corpus])
        for split in chosen:
            queries = list(unique_queries(source, split))
            ids = [query.id for query in queries]
            qrels = qrels_of(source, split, ids, known[source.corpus_name(split)].__contains__)
            counts[split] = len(ids)
            if ids:  # a table without rows is none that `datasets` loads
                writer.write_split(split, queries_from_columns(ids, [query.text for query in queries]), qrels)
        _refuse_empty(source, counts, chosen)
    return counts


def write_cleaned(source: DatasetReader, result: CheckResult, folder: str | Path) -> dict[str, int]:
    """Write what is sound of a data set in the own form.

    Left out are lines and documents that cannot be read, later documents and queries of an id, judgements of what is
    not there, queries that leak into a later split, and queries that are left without a positive. Images whose offset
    was wrong are read where they are.

    Args:
        source: The data set.
        result: What a check has found in it.
        folder: Where to; an older folder is replaced.

    Returns:
        How many documents of each corpus and queries of each split were written.

    Raises:
        ValueError: If no document or no query is left.
    """
    source.report = ignore
    counts: dict[str, int] = {}
    with dataset_writer(folder, f"# {source.name}\n\nCleaned by `ciea data check --fix`.") as writer:
        for corpus, unusable in result.unusable.items():
            kept: set[str] = set()
            documents = _noting(_sound(source, corpus, unusable, result.offsets), kept)
            writer.write_corpus(corpus, document_tables(documents, ROWS_PER_BATCH))
            counts[_title(corpus)] = len(kept)
        for split, content in result.splits.items():
            ids = [query for query in content.positives if query not in result.leaked.get(split, ())]
            queries = queries_from_columns(ids, [content.queries[query].text for query in ids])
            counts[split] = len(ids)
            if ids:
                writer.write_split(split, queries, {query: content.qrels[query] for query in ids})
        _refuse_empty(source, counts, list(result.splits))
    return counts


def _title(corpus: str) -> str:
    return corpus if corpus == SHARED_SPLIT else f"{corpus} (corpus)"  # it may be called like a split


def _refuse_empty(source: DatasetReader, counts: dict[str, int], splits: list[str]) -> None:
    queries = sum(counts[split] for split in splits)
    documents = sum(counts.values()) - queries
    if not (queries and documents):
        raise ValueError(f"{source.path}: nothing to write: {documents} documents and {queries} queries")


def _noting(documents: Iterable[CorpusEntry], ids: set[str]) -> Iterator[CorpusEntry]:
    for document in documents:
        ids.add(document.id)
        yield document


def _sound(source: DatasetReader, corpus: str, unusable: set[str], offsets: dict[str, int]) -> Iterator[CorpusEntry]:
    for document in unique_documents(source, corpus):
        if document.id in unusable:
            continue
        if document.id in offsets and source.images is not None:
            yield document._replace(image=source.images.encoded(document.id, offsets[document.id]))
        else:
            yield document
