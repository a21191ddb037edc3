"""The own form on disk: a Hugging Face data set in parquet files, ready for `push_to_hub`.

Its configurations are `corpus` (id, text, image, modality), `queries` (id, text) and `qrels` (query-id,
corpus-id, score), one parquet file or more for each split. Images are embedded as they are encoded.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ciea_hf.data.dataset import CORPUS_COLUMNS, QUERY_COLUMNS, SHARED_SPLIT, corpus_features, qrels_table
from ciea_hf.utils import atomic_folder, import_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import datasets
    import pyarrow as pa

    from ciea_hf.data.dataset import Qrels, RetrievalDataset

CONFIGS = ("corpus", "queries", "qrels")
ROWS_PER_FILE = 5_000  # some 500 MB of pictures from the web
ROWS_PER_BATCH = 100  # rows read, embedded and written at once


def save_retrieval_dataset(
    splits: Mapping[str, RetrievalDataset], folder: str | Path, card: str, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write splits as one Hugging Face data set, in a folder that appears whole or not at all.

    Splits that share one corpus object share its files, too. Images are embedded in the parquet files as they are
    encoded.

    Args:
        splits: By name.
        folder: Where to; an older folder is replaced.
        card: The data card's text, in Markdown.
        metadata: Further keys of the card's header, such as `{"license": "cc-by-sa-4.0"}`.

    Raises:
        ValueError: If there is no split, or an image cannot be read; the message names its document.
    """
    if not splits:
        raise ValueError("splits must hold at least one split")
    shared = len(splits) > 1 and len({id(dataset.corpus) for dataset in splits.values()}) == 1
    corpora = {SHARED_SPLIT: next(iter(splits.values()))} if shared else dict(splits)
    with dataset_writer(folder, card, metadata) as writer:
        for name, dataset in corpora.items():
            writer.write_corpus(name, _tables(dataset.corpus))
        for split, dataset in splits.items():
            writer.write_split(split, dataset.queries, dataset.qrels)


@contextmanager
def dataset_writer(folder: str | Path, card: str, metadata: Mapping[str, Any] | None = None) -> Iterator[DatasetWriter]:
    """Write a data set piece by piece, in a folder that appears whole when the block ends without an error.

    Args:
        folder: Where to; an older folder is replaced.
        card: The data card's text, in Markdown.
        metadata: Further keys of the card's header.
    """
    hub = import_optional("huggingface_hub", extra="eval")
    with atomic_folder(folder) as target:
        writer = DatasetWriter(target)
        yield writer
        header = hub.DatasetCardData(**dict(metadata or {}), configs=writer.configs()).to_yaml()
        (target / "README.md").write_text(f"---\n{header}\n---\n\n{card.strip()}\n", encoding="utf-8")


class DatasetWriter:
    """Writes the parquet files of a data set; give it to nobody, get it from [`dataset_writer`].

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpora: list[str] = []
        self.splits: list[str] = []

    def write_corpus(self, name: str, tables: Iterable[pa.Table]) -> None:
        """Write a corpus of tables of rows, none of them held longer than it takes to write it.

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
        """List what was written, as the header of a data card does."""
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
    plain = corpus.select_columns(list(CORPUS_COLUMNS))
    if plain.features != corpus_features():
        plain = plain.cast(corpus_features())
    if len(plain):
        yield from plain.with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    else:
        yield corpus_features().arrow_schema.empty_table()


def _chunks(tables: Iterable[pa.Table], rows: int) -> Iterator[Iterator[pa.Table]]:
    """Deal out tables in runs of at most so many rows; each run has to be used up before the next one is asked for."""
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
    """Put the bytes of images in the place of their paths."""
    embed_table_storage = import_optional("datasets.table", extra="eval").embed_table_storage
    try:
        return embed_table_storage(table).cast(table.schema)
    except (OSError, ValueError):
        for row in range(len(table)):  # say which one
            try:
                embed_table_storage(table.slice(row, 1))
            except (OSError, ValueError) as error:
                name = table["id"][row].as_py()
                missing = isinstance(error, FileNotFoundError)
                raise (FileNotFoundError if missing else ValueError)(
                    f"the image of document {name!r} cannot be read: {error}"
                ) from error
        raise


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
