"""Writing of data sets in the BEIR-style parquet format: a Hugging Face data set, ready for `push_to_hub`.

Its configurations are `corpus` (id, text, image, modality), `queries` (id, text) and `qrels` (query-id, corpus-id,
score), with one or more parquet files per split. Images are embedded in their original encoding.
"""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from ciea_hf.data.dataset import (
    CORPUS_COLUMNS,
    QUERY_COLUMNS,
    SHARED_SPLIT,
    corpus_features,
    further_columns,
    qrels_table,
    queries_from_columns,
)
from ciea_hf.data.images import image_bytes, location_in_folder
from ciea_hf.data.issues import ignore
from ciea_hf.data.readers.base import chosen_splits, document_tables, qrels_of, unique_documents, unique_queries
from ciea_hf.files import atomic_folder
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import datasets
    import pyarrow as pa

    from ciea_hf.data.check_result import CheckResult
    from ciea_hf.data.dataset import Qrels, RetrievalDataset
    from ciea_hf.data.readers.base import DatasetReader
    from ciea_hf.data.readers.fields import CorpusEntry

CONFIGS = ("corpus", "queries", "qrels")
ROWS_PER_FILE = 5_000  # about 500 MB of images from the web
ROWS_PER_BATCH = 100  # rows read, embedded and written at once


def save_retrieval_dataset(
    splits: Mapping[str, RetrievalDataset], folder: str | Path, card: str, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write splits as one Hugging Face data set, atomically.

    Splits that share a corpus object share its files. Images are embedded in their original encoding.

    Args:
        splits: Data sets by split.
        folder: Output folder; an existing one is replaced.
        card: Text of the data card, in Markdown.
        metadata: Further keys of the card's header, such as `{"license": "cc-by-sa-4.0"}`.

    Raises:
        ValueError: If `splits` is empty, or an image cannot be read; the message names its document.
    """
    if not splits:
        raise ValueError("`splits` must contain at least one split")
    shared = len(splits) > 1 and len({id(dataset.corpus) for dataset in splits.values()}) == 1
    corpora = {SHARED_SPLIT: next(iter(splits.values()))} if shared else dict(splits)
    with dataset_writer(folder, card, metadata) as writer:
        for name, dataset in corpora.items():
            writer.write_corpus(name, _tables(dataset.corpus))
        for split, dataset in splits.items():
            writer.write_split(split, dataset.queries, dataset.qrels)


@contextmanager
def dataset_writer(folder: str | Path, card: str, metadata: Mapping[str, Any] | None = None) -> Iterator[DatasetWriter]:
    """Write a data set incrementally; the folder appears when the block ends without an error.

    Args:
        folder: Output folder; an existing one is replaced.
        card: Text of the data card, in Markdown.
        metadata: Further keys of the card's header.
    """
    hub = import_optional("huggingface_hub", extra="eval")
    with atomic_folder(folder) as target:
        writer = DatasetWriter(target)
        yield writer
        header = hub.DatasetCardData(**dict(metadata or {}), configs=writer.configs()).to_yaml()
        (target / "README.md").write_text(f"---\n{header}\n---\n\n{card.strip()}\n", encoding="utf-8")


class DatasetWriter:
    """Writes the parquet files of a data set; created by [`dataset_writer`].

    Args:
        folder: Output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpora: list[str] = []
        self.splits: list[str] = []

    def write_corpus(self, name: str, tables: Iterable[pa.Table]) -> None:
        """Write the tables of a corpus one by one.

        Raises:
            ValueError: If an image cannot be read; the message names its document.
        """
        folder = self.folder / "corpus"
        folder.mkdir(exist_ok=True)
        files: list[Path] = []
        for chunk in _chunks(tables, ROWS_PER_FILE):
            files.append(folder / f"{name}-{len(files):05d}.parquet")
            _write_tables(map(_embed, chunk), files[-1])
        for number, file in enumerate(files):
            file.rename(folder / f"{name}-{number:05d}-of-{len(files):05d}.parquet")
        self.corpora.append(name)

    def write_split(self, split: str, queries: datasets.Dataset, qrels: Qrels) -> None:
        """Write queries and judgements of a split."""
        for config, table in (("queries", queries.select_columns(list(QUERY_COLUMNS))), ("qrels", qrels_table(qrels))):
            (self.folder / config).mkdir(exist_ok=True)
            _write_tables([table.with_format("arrow")[:]], self.folder / config / f"{split}.parquet")
        self.splits.append(split)

    def configs(self) -> list[dict[str, Any]]:
        """Return the written configurations, for the header of a data card."""
        held = {"corpus": self.corpora, "queries": self.splits, "qrels": self.splits}
        pattern = {"corpus": "-*", "queries": "", "qrels": ""}
        return [
            {
                "config_name": config,
                "data_files": [{"split": s, "path": f"{config}/{s}{pattern[config]}.parquet"} for s in held[config]],
            }
            for config in CONFIGS
        ]


def _tables(corpus: datasets.Dataset) -> Iterator[pa.Table]:
    further = further_columns(corpus.features.arrow_schema)
    plain = corpus.select_columns([*CORPUS_COLUMNS, *further])
    features = corpus_features()
    features.update({name: corpus.features[name] for name in further})
    if plain.features != features:
        plain = plain.cast(features)
    if len(plain):
        yield from plain.with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    else:
        yield features.arrow_schema.empty_table()


def _chunks(tables: Iterable[pa.Table], rows: int) -> Iterator[Iterator[pa.Table]]:
    """Group tables into runs of at most `rows` rows; each run must be consumed before the next one is requested."""
    waiting = iter(tables)
    ahead = next(waiting, None)

    def run() -> Iterator[pa.Table]:
        nonlocal ahead
        held = 0
        while ahead is not None and held < rows:
            take = min(len(ahead), rows - held)
            yield ahead.slice(0, take)
            held += take
            ahead = ahead.slice(take) if take < len(ahead) else next(waiting, None)

    while ahead is not None:
        yield run()


def _embed(table: pa.Table) -> pa.Table:
    """Replace the paths of images by their bytes, which must be those of an image file."""
    arrow = import_optional("pyarrow", extra="eval")
    images = []
    for name, image in zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True):
        if image is None or image["bytes"] is not None:
            images.append(image)
            continue
        try:
            content = image_bytes(image)
            with Image.open(BytesIO(content)):
                images.append({"bytes": content, "path": location_in_folder(str(image["path"]))})
        except (OSError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"the image of document {name!r} cannot be read: {error}") from error
    position = table.schema.get_field_index("image")
    column = arrow.array(images, type=table.schema.field("image").type)
    return table.set_column(position, table.schema.field("image"), column)


def _write_tables(tables: Iterable[pa.Table], path: Path) -> None:
    parquet = import_optional("pyarrow.parquet", extra="eval")
    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def convert_dataset(reader: DatasetReader, folder: str | Path, splits: Iterable[str] | None = None) -> dict[str, int]:
    """Convert a data set to the parquet format, with at most a few hundred documents in memory.

    Args:
        reader: Reader of the data set.
        folder: Output folder; an existing one is replaced.
        splits: Splits to write; all if `None`.

    Returns:
        Number of documents per corpus and of queries per split.

    Raises:
        ValueError: If the data are invalid, or an image file cannot be read; the message names file, line and id.
        FileNotFoundError: If a file is missing.
    """
    chosen = chosen_splits(reader, splits)
    if not chosen:
        raise ValueError(f"{reader.path} has no split and no queries")
    counts: dict[str, int] = {}
    known: dict[str, set[str]] = {}
    with dataset_writer(folder, f"# {reader.name}\n\nConverted by `ciea data convert`.") as writer:
        for corpus in dict.fromkeys(map(reader.corpus_name, chosen)):
            known[corpus] = set()
            documents = _noting(unique_documents(reader, corpus), known[corpus])
            tables = document_tables(documents, ROWS_PER_BATCH, reader.has_metadata(corpus))
            writer.write_corpus(corpus, tables)
            counts[_title(corpus)] = len(known[corpus])
        for split in chosen:
            queries = list(unique_queries(reader, split))
            ids = [query.id for query in queries]
            qrels = qrels_of(reader, split, ids, known[reader.corpus_name(split)].__contains__)
            counts[split] = len(ids)
            if ids:  # `datasets` cannot load a table without rows
                writer.write_split(split, queries_from_columns(ids, [query.text for query in queries]), qrels)
        _refuse_empty(reader, counts, chosen)
    return counts


def write_cleaned(reader: DatasetReader, result: CheckResult, folder: str | Path) -> dict[str, int]:
    """Write the valid part of a data set in the parquet format.

    Excluded are unreadable lines and documents, repeated ids after the first, judgements of missing queries or
    documents, queries that leak into a later split, and queries that remain without a positive. Images with a wrong
    offset are read from their actual line.

    Args:
        reader: Reader of the data set.
        result: Result of a check.
        folder: Output folder; an existing one is replaced.

    Returns:
        Number of documents per corpus and of queries per split.

    Raises:
        ValueError: If no document or no query remains.
    """
    reader.report = ignore
    counts: dict[str, int] = {}
    with dataset_writer(folder, f"# {reader.name}\n\nCleaned by `ciea data check --fix`.") as writer:
        for corpus, unusable in result.unusable.items():
            kept: set[str] = set()
            documents = _noting(_sound(reader, corpus, unusable, result.offsets), kept)
            tables = document_tables(documents, ROWS_PER_BATCH, reader.has_metadata(corpus))
            writer.write_corpus(corpus, tables)
            counts[_title(corpus)] = len(kept)
        for split, content in result.splits.items():
            ids = [query for query in content.positives if query not in result.leaked.get(split, ())]
            queries = queries_from_columns(ids, [content.queries[query].text for query in ids])
            counts[split] = len(ids)
            if ids:
                writer.write_split(split, queries, {query: content.qrels[query] for query in ids})
        _refuse_empty(reader, counts, list(result.splits))
    return counts


def _title(corpus: str) -> str:
    return corpus if corpus == SHARED_SPLIT else f"{corpus} (corpus)"  # a split may have the same name


def _refuse_empty(reader: DatasetReader, counts: dict[str, int], splits: list[str]) -> None:
    queries = sum(counts[split] for split in splits)
    documents = sum(counts.values()) - queries
    if not (queries and documents):
        raise ValueError(f"{reader.path}: nothing to write: {documents} documents and {queries} queries")


def _noting(documents: Iterable[CorpusEntry], ids: set[str]) -> Iterator[CorpusEntry]:
    for document in documents:
        ids.add(document.id)
        yield document


def _sound(reader: DatasetReader, corpus: str, unusable: set[str], offsets: dict[str, int]) -> Iterator[CorpusEntry]:
    for document in unique_documents(reader, corpus):
        if document.id in unusable:
            continue
        if document.id in offsets and reader.images is not None:
            yield document._replace(image=reader.images.encoded(document.id, offsets[document.id]))
        else:
            yield document
