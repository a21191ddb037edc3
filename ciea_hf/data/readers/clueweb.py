"""ClueWeb22-MM as distributed by its publisher: parquet tables.

`train`, `dev`, `test` (qid, query, text_id, img_id), `text` (text_id, surround) and `image` (img_id, caption,
and one column of bytes with any name).
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.data.dataset import column_values
from ciea_hf.data.issues import IssueHandler, Location, raise_on_error
from ciea_hf.data.parsing import Entry, Judgement
from ciea_hf.data.readers.base import DatasetReader
from ciea_hf.data.readers.fields import CorpusEntry, Query, document_of, query_of, required_id
from ciea_hf.data.readers.mapped import mapped, mapped_corpus, same_columns
from ciea_hf.data.readers.tables import columns_of, encoded_image, refuse_repeated, rows, schema_of, shards
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterator

    import datasets

SPLITS = ("train", "dev", "test")


def recognises(path: str) -> bool:
    """Return whether a folder contains the tables of images and texts."""
    folder = Path(path)
    tables = [shards(folder, name) for name in ("image", "text")] if folder.is_dir() else []
    return bool(tables) and all(tables) and "img_id" in columns_of(tables[0][0])


class ClueWeb(DatasetReader):
    """Reader of ClueWeb22-MM.

    Args:
        path: Folder of the tables.
        report: Handler of issues.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error) -> None:
        super().__init__(path, report)
        for name in ("text", "image"):
            if not self._files(name):
                report("missing-file", Location(str(Path(path) / f"{name}.parquet")), None, "table not found")

    @property
    def splits(self) -> list[str]:
        """Splits with a table of queries."""
        return [split for split in SPLITS if shards(Path(self.path), split)]

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the texts, then the images with their captions."""
        texts = map(self._text, rows(self._files("text"), [], self.report, ["text_id", "surround"]))
        column = self._image_column() if self._files("image") else ""
        images = rows(self._files("image"), [], self.report, ["img_id", "caption", column])
        for document in chain(texts, map(partial(self._image, column), images)):
            if document is not None:
                yield document

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries."""
        seen: dict[str, str] = {}
        for name, entry in self._entries(split):
            query = query_of(entry, name, entry.value["query"], self.report)
            if query is not None and seen.get(name) != query.text:  # a query has one row per positive
                seen.setdefault(name, query.text)
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the positives: a text, an image, or both."""
        for query, entry in self._entries(split):
            for column in ("text_id", "img_id"):
                for document in _as_ids(entry.value[column]):
                    yield Judgement(entry.location, query, document, 1)

    def corpus(self, corpus: str) -> datasets.Dataset:
        """Return the corpus, memory-mapped unless its files have unusual types.

        Raises:
            ValueError: If an id repeats.
        """
        column = self._image_column()
        needed = (("text", ("text_id", "surround")), ("image", ("img_id", "caption", column)))
        if not all(same_columns(self._files(name), columns, all_of_them=True) for name, columns in needed):
            return super().corpus(corpus)
        texts, images = mapped(self._files("text")), mapped(self._files("image"))
        parts = [
            mapped_corpus(texts, None, self._text, f"{self.path}, text", self.report),
            mapped_corpus(images, column, partial(self._image, column), f"{self.path}, image", self.report),
        ]
        table = import_optional("datasets", extra="eval").concatenate_datasets(parts)
        refuse_repeated(column_values(table, "id"), f"{self.path}, text and image")
        return table

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """Return the files of the tables of texts and images."""
        return self._files("text") + self._files("image")

    def _text(self, entry: Entry) -> CorpusEntry | None:
        name = required_id(entry, "text_id", self.report)
        return None if name is None else document_of(entry, name, entry.value["surround"], None, self.report)

    def _image(self, column: str, entry: Entry) -> CorpusEntry | None:
        name = required_id(entry, "img_id", self.report)
        if name is None:
            return None
        image = encoded_image(entry.value[column]) or {"bytes": b"", "path": None}  # an empty cell is a broken image
        return document_of(entry, name, entry.value["caption"], image, self.report)

    def _files(self, name: str) -> list[Path]:
        return shards(Path(self.path), name)

    def _entries(self, split: str) -> Iterator[tuple[str, Entry]]:
        for entry in rows(self._files(split), [], self.report, ["qid", "query", "text_id", "img_id"]):
            name = required_id(entry, "qid", self.report)
            if name is not None:
                yield name, entry

    def _image_column(self) -> str:
        """Return the name of the only column of bytes, which contains the images."""
        file = self._files("image")[0]
        schema = schema_of(file)
        types = import_optional("pyarrow.types", extra="eval")
        found: list[str] = [
            column.name
            for column in schema
            if types.is_binary(column.type) or types.is_large_binary(column.type) or types.is_struct(column.type)
        ]
        if len(found) != 1:
            raise ValueError(f"{file}: exactly one column must contain bytes; found {found} among {schema.names}")
        return found[0]


def _as_ids(value: Any) -> list[str]:
    """Return the ids in a cell; pandas writes integers with missing values as floats, and missing values as NaN."""
    values = value if isinstance(value, list) else [value]
    numbers = [int(item) if isinstance(item, float) and item.is_integer() else item for item in values]
    return [str(item) for item in numbers if item is not None and not isinstance(item, float) and str(item).strip()]
