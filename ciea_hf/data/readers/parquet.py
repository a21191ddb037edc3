"""BEIR-style parquet format of this package and of mteb, on disk or on the Hub.

The configurations `corpus`, `queries` and `qrels` are folders of parquet files, the files listed in the header of
`README.md`, or single files such as `corpus.parquet` and `queries-test.parquet`. The other names of mteb are also
supported: `query` for `queries`, `default` for `qrels`, `_id` for `id`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.data import judgements
from ciea_hf.data.dataset import further_columns
from ciea_hf.data.images import UNAVAILABLE
from ciea_hf.data.issues import IssueHandler, Location, raise_on_error
from ciea_hf.data.parsing import Entry, Judgement
from ciea_hf.data.readers.base import DatasetReader, in_order
from ciea_hf.data.readers.fields import (
    OTHER_IMAGES,
    QUERY_PARTS,
    QUERY_TEXTS,
    TEXTS,
    CorpusEntry,
    Query,
    local_image,
    only_text_query,
    own_document,
    required_id,
    short,
)
from ciea_hf.data.readers.mapped import mapped, mapped_corpus, same_columns
from ciea_hf.data.readers.tables import encoded_image, rows, schema_of, shards_by_split
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterator

    import datasets

    from ciea_hf.data.images import EncodedImage

NAMES = {"corpus": ("corpus",), "queries": ("queries", "query"), "qrels": ("qrels", "default")}
"""Possible names of each configuration."""
CORPUS_IDS = ("id", "_id", "corpus-id", "corpus_id", "docid", "doc_id")
QUERY_IDS = ("id", "_id", "query-id", "query_id", "qid")
OWN_COLUMNS = (*TEXTS, "title", "image", "modality")
READ_COLUMNS = (*CORPUS_IDS, *OWN_COLUMNS, *OTHER_IMAGES)
ALONE = ["queries", "qrels"]  # missing from a corpus that can only be searched


def recognises(path: str) -> bool:
    """Return whether a path is a folder with these configurations, or the id of a data set on the Hub."""
    folder = Path(path)
    if not folder.exists():
        return re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None
    try:
        return any((folder / name).is_dir() for names in NAMES.values() for name in names) or bool(
            _tables(folder, "corpus")
        )
    except ValueError:  # invalid data card
        return False


def _tables(folder: Path, config: str) -> dict[str, list[Path]]:
    """Return the parquet files of a configuration by split."""
    for name in NAMES[config]:
        found = shards_by_split(folder / name) or _declared(folder, name) or _single_files(folder, name, config)
        if found:
            return found
    return {}


def _single_files(folder: Path, name: str, config: str) -> dict[str, list[Path]]:
    """Return the files of a configuration in the folder itself: NAME.parquet or NAME-SPLIT.parquet."""
    whole = "train" if config == "qrels" else config  # the split that `datasets` assigns to files without one
    return {
        whole if stem == name else stem[len(name) + 1 :]: files
        for stem, files in shards_by_split(folder).items()
        if stem == name or re.match(rf"{name}[-_.].", stem)
    }


def _declared(folder: Path, config: str) -> dict[str, list[Path]]:
    """Return the parquet files of a configuration in the header of the data card.

    Raises:
        ValueError: If the header cannot be read.
    """
    card = folder / "README.md"
    if not card.is_file():
        return {}
    import yaml

    try:
        header = (
            import_optional("huggingface_hub", extra="eval").DatasetCard.load(card, ignore_metadata_errors=True).data
        )
        declared = [item for item in header.to_dict().get("configs") or [] if item.get("config_name") == config]
    except (AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{card}: the header cannot be read: {' '.join(str(error).split())}") from error
    files = _patterns(declared[0].get("data_files")) if declared else {}
    found = {
        split: [file for pattern in some for file in sorted(folder.glob(pattern))] for split, some in files.items()
    }
    return {split: some for split, some in found.items() if some}


def _patterns(written: Any) -> dict[str, list[str]]:
    """Normalise the `data_files` of a header, which may be one or several patterns, for one split or by split."""
    items = written if isinstance(written, list) else [written] if written else []
    if all(isinstance(item, str) for item in items):
        items = [{"split": "train", "path": items}]  # as `datasets` does
    found: dict[str, list[str]] = {}
    for item in items:
        if isinstance(item, dict) and "split" in item and "path" in item:
            found[item["split"]] = item["path"] if isinstance(item["path"], list) else [item["path"]]
    return found


class ParquetReader(DatasetReader):
    """Reader of the BEIR-style parquet format.

    Args:
        path: Folder, or id on the Hub.
        report: Handler of issues.

    Raises:
        FileNotFoundError: If a configuration is missing from a folder.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error) -> None:
        super().__init__(path, report)
        self._folder = Path(path) if Path(path).exists() else None
        if self._folder is not None:
            lacking = [config for config in NAMES if not _tables(self._folder, config)]
            if lacking and lacking != ALONE:
                needs = ", ".join(NAMES)
                raise FileNotFoundError(
                    f"{self._folder / lacking[0]} contains no parquet file; a data set requires {needs}"
                )

    @property
    def splits(self) -> list[str]:
        """Splits of the queries, or of the judgements if all queries are in one split of another name."""
        queries, judged = self._splits("queries"), self._splits("qrels")
        return in_order(judged if len(queries) == 1 and not queries.keys() & judged.keys() else queries)

    def corpus_name(self, split: str) -> str:
        """Return the name of a split's corpus; a single corpus serves all splits.

        Raises:
            ValueError: If there are several, but none for the split.
        """
        corpora = list(self._splits("corpus"))
        if split in corpora:
            return split
        if len(corpora) == 1:
            return corpora[0]
        raise ValueError(f"{self.path}: corpus has no split {split!r}; it has {corpora}")

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:
        """Yield the rows of a corpus."""
        columns = dict.fromkeys((*READ_COLUMNS, *self._further(corpus)))
        for entry in self._rows("corpus", corpus, tuple(columns)):
            document = self._document(entry)
            if document is not None:
                yield document

    def has_metadata(self, corpus: str) -> bool:
        """Return whether the corpus has further columns."""
        return bool(self._further(corpus))

    def _further(self, corpus: str) -> list[str]:
        """Return the columns that are metadata; files that cannot be read are reported with their rows."""
        if self._folder is None:
            names = further_columns(self._table("corpus", corpus).features.arrow_schema)
        else:
            names = []
            for file in self._splits("corpus")[corpus]:
                with suppress(ValueError):
                    names += further_columns(schema_of(file))
        return [name for name in dict.fromkeys(names) if name not in (*CORPUS_IDS, *OWN_COLUMNS)]

    def _document(self, entry: Entry) -> CorpusEntry | None:
        name = self._name(entry, CORPUS_IDS)
        if name is None:
            return None
        try:
            image = encoded_image(entry.value.get("image"))
        except ValueError as error:
            self.report("unreadable", entry.location, name, str(error))
            return None
        if image is not None and image["bytes"] is None:
            image = self._image_file(entry, name, image["path"])
        modality = entry.value.get("modality")
        if isinstance(modality, str) and ("image" in modality) == (image is None):
            held = "no image" if image is None else "an image"
            message = f"'modality' is {modality!r}, but the row has {held}; what it has decides"
            self.report("contradiction", entry.location, name, message)
        if modality == "image":  # written for images without a caption
            entry.value["text"] = entry.value.get("text") or None
        return own_document(entry, name, image, self.report)

    def _image_file(self, entry: Entry, name: str, path: Any) -> EncodedImage:
        """Return the image at a path in the folder; a data set on the Hub has none, unless its root is given."""
        root = self.image_root or (None if self._folder is None else self._folder.resolve())
        if root is not None:
            return local_image(entry, name, root, path, self.report)
        message = f"image {short(path)} is a path, and a data set on the Hub has no folder: set `image_root`"
        self.report("unreadable", entry.location, name, message)
        return UNAVAILABLE

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries."""
        there = self._splits("queries")
        shared = split not in there
        judged = {judgement.query for judgement in self.judgements(split)} if shared else set()
        columns = (*QUERY_IDS, *QUERY_TEXTS, *QUERY_PARTS)
        for entry in self._rows("queries", next(iter(there)) if shared else split, columns):
            name = self._name(entry, QUERY_IDS)
            query = None if name is None else only_text_query(entry, name, self.report)
            if query is not None and (not shared or name in judged):
                yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the judgements; a missing score is 1."""
        columns = (*judgements.QUERY_IDS, *judgements.DOCUMENT_IDS, *judgements.SCORES)
        for entry in self._rows("qrels", split, columns):
            judgement = judgements.judgement_of(entry, self.report)
            if judgement is not None:
                yield judgement

    def corpus(self, corpus: str) -> datasets.Dataset:
        """Return a corpus, memory-mapped unless its files have unusual types.

        Raises:
            ValueError: If the data are invalid.
        """
        columns = READ_COLUMNS
        if self._folder is not None and not same_columns(self._splits("corpus")[corpus], columns):
            return super().corpus(corpus)
        table = self._table("corpus", corpus)
        if "image" in table.column_names and getattr(table.features["image"], "dtype", None) == "string":
            return super().corpus(corpus)  # paths, each of which is checked when its row is read
        own = [column for column in table.column_names if column in columns]
        image = "image" if "image" in table.column_names else None
        where = self._where("corpus", corpus)
        further = self._further(corpus)
        return mapped_corpus(
            table.select_columns(own), image, self._document, where, self.report, table.select_columns(further)
        )

    def corpus_files(self, corpus: str) -> list[Path]:
        """Return the files of the corpus on disk."""
        return self._splits("corpus")[corpus]

    def _name(self, entry: Entry, keys: tuple[str, ...]) -> str | None:
        return required_id(entry, next((key for key in keys if key in entry.value), keys[0]), self.report)

    @cached_property
    def _configs(self) -> dict[str, str]:
        """Return the names of the configurations on the Hub."""
        there = import_optional("datasets", extra="eval").get_dataset_config_names(self.path)
        found = {config: [name for name in NAMES[config] if name in there] for config in NAMES}
        lacking = [config for config, names in found.items() if not names]
        if lacking and lacking != ALONE:
            raise ValueError(f"{self.path}: no configuration {lacking}; it has {there}")
        return {config: names[0] for config, names in found.items() if names}

    def _splits(self, config: str) -> dict[str, list[Path]]:
        if self._folder is not None:
            return _tables(self._folder, config)
        if config not in self._configs:
            return {}
        names = import_optional("datasets", extra="eval").get_dataset_split_names(self.path, self._configs[config])
        return {name: [] for name in names}

    def _where(self, config: str, split: str) -> str:
        files = self._splits(config)[split]
        return str(files[0]) if files else f"{self.path}, {config}"

    def _table(self, config: str, split: str) -> datasets.Dataset:
        if self._folder is not None:
            return mapped(_tables(self._folder, config)[split])
        table: datasets.Dataset = import_optional("datasets", extra="eval").load_dataset(
            self.path, self._configs[config], split=split
        )
        return table

    def _rows(self, config: str, split: str, columns: tuple[str, ...]) -> Iterator[Entry]:
        """Yield the rows of a split, with those of the columns that exist."""
        if self._folder is not None:
            yield from rows(_tables(self._folder, config).get(split, []), columns, self.report)
            return
        table = self._table(config, split)
        chosen = [column for column in columns if column in table.column_names]
        number = 0
        for batch in table.select_columns(chosen).with_format("arrow").iter(batch_size=200):
            for row in batch.to_pylist():
                number += 1
                yield Entry(Location(f"{self.path}, {config}", number, "row"), row)
