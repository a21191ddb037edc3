"""A retrieval data set in memory and on disk: corpus, queries and judgements.

On disk it is a Hugging Face data set with the configurations ``corpus`` (id, text, image, modality), ``queries`` (id,
text) and ``qrels`` (query-id, corpus-id, score), one parquet file or more for each split.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.data.columns import (
    CORPUS_COLUMNS,
    MODALITIES,
    QRELS_COLUMNS,
    QUERY_COLUMNS,
    column_values,
    corpus_features,
    qrels_table,
)
from ciea_hf.utils import atomic_folder, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import datasets

Qrels = dict[str, dict[str, int]]

CONFIGS = ("corpus", "queries", "qrels")
SHARED_SPLIT = "corpus"  # what the one corpus is called that serves every split
ROWS_PER_FILE = 20_000
ROWS_PER_BATCH = 500  # rows read, hashed and written at once
FINGERPRINTED_IMAGES = 64


@dataclass(frozen=True, eq=False)
class RetrievalDataset:
    """Queries, the corpus they search and what is relevant to them.

    Args:
        corpus: Columns ``id`` (str), ``text`` (str or None), ``image`` (:class:`datasets.Image` or None, decoded when a
            row is read) and ``modality`` (``"text"``, ``"image"`` or ``"image,text"``).
        queries: Columns ``id`` and ``text``.
        qrels: ``{query id: {document id: score}}``; a score above 0 is relevant.
        name: What the data set is called in tables and cards.
        split: ``"train"``, ``"dev"`` or ``"test"``.

    Raises:
        ValueError: If a column is missing.
    """

    corpus: datasets.Dataset
    queries: datasets.Dataset
    qrels: Qrels
    name: str
    split: str

    def __post_init__(self) -> None:
        for part, columns in (("corpus", CORPUS_COLUMNS), ("queries", QUERY_COLUMNS)):
            found = getattr(self, part).column_names
            missing = [column for column in columns if column not in found]
            if missing:
                raise ValueError(f"{self.name}/{self.split}: {part} has no column {missing}; it has {found}")

    @cached_property
    def corpus_ids(self) -> list[str]:
        """The documents' ids in the order of the corpus."""
        return column_values(self.corpus, "id")

    @cached_property
    def document_kinds(self) -> dict[str, str]:
        """``"image"`` for each document that has one, with or without a caption, else ``"text"``; decodes nothing."""
        modalities = column_values(self.corpus, "modality")
        unknown = sorted({str(modality) for modality in modalities} - set(MODALITIES))
        if unknown:
            raise ValueError(
                f"{self.name}/{self.split}: unknown modality {unknown[:3]}; choose from {list(MODALITIES)}"
            )
        return {
            document: "text" if modality == "text" else "image"
            for document, modality in zip(self.corpus_ids, modalities, strict=True)
        }

    def query_kinds(self) -> dict[str, str]:
        """Return ``"image"``, ``"text"`` or ``"mixed"`` for each query that has a positive: the kind of its positives.

        Raises:
            ValueError: If a judged document is not in the corpus.
        """
        kinds: dict[str, str] = {}
        for query, judged in self.qrels.items():
            positives = [document for document, score in judged.items() if score > 0]
            absent = next((document for document in positives if document not in self.document_kinds), None)
            if absent is not None:
                raise ValueError(f"{self.name}/{self.split}: query {query!r} judges {absent!r}, which the corpus lacks")
            found = {self.document_kinds[document] for document in positives}
            if found:
                kinds[query] = found.pop() if len(found) == 1 else "mixed"
        return kinds

    @cached_property
    def corpus_fingerprint(self) -> str:
        """A hash of the corpus, the same in every process: ids, texts, the images' sizes in bytes.

        Of the images' bytes themselves 64 are hashed, spread over the corpus, so that a large corpus stays cheap.
        """
        digest = hashlib.sha256()
        for column in ("id", "text", "modality"):
            digest.update(repr(column_values(self.corpus, column)).encode())
        _hash_images(self.corpus, digest)
        return digest.hexdigest()[:32]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content, the same in every process: the corpus, queries and judgements."""
        digest = hashlib.sha256(self.corpus_fingerprint.encode())
        for column in QUERY_COLUMNS:
            digest.update(repr(column_values(self.queries, column)).encode())
        digest.update(repr(sorted((query, sorted(judged.items())) for query, judged in self.qrels.items())).encode())
        return digest.hexdigest()[:32]


def _hash_images(corpus: datasets.Dataset, digest: hashlib._Hash) -> None:
    compute = require("pyarrow.compute", extra="eval")
    encoded = corpus.select_columns(["image"]).with_format("arrow")
    if len(encoded) == 0:
        return
    for batch in encoded.iter(batch_size=ROWS_PER_BATCH):
        digest.update(repr(compute.binary_length(compute.struct_field(batch["image"], "bytes")).to_pylist()).encode())
        paths = compute.struct_field(batch["image"], "path").to_pylist()
        digest.update(repr([path and Path(path).name for path in paths]).encode())
    step = max(1, len(encoded) // FINGERPRINTED_IMAGES)
    for image in encoded.select(range(0, len(encoded), step))[:]["image"].to_pylist():
        digest.update((image or {}).get("bytes") or b"-")


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
        metadata: Further keys of the card's header, such as ``{"license": "cc-by-sa-4.0"}``.

    Raises:
        ValueError: If there is no split.
    """
    if not splits:
        raise ValueError("splits must hold at least one split")
    hub = require("huggingface_hub", extra="eval")
    shared = len(splits) > 1 and len({id(dataset.corpus) for dataset in splits.values()}) == 1
    corpora = {SHARED_SPLIT: next(iter(splits.values()))} if shared else dict(splits)
    with atomic_folder(folder) as target:
        for split, dataset in corpora.items():
            _write_corpus(dataset.corpus, target / "corpus", split)
        for split, dataset in splits.items():
            _write_rows(dataset.queries.select_columns(list(QUERY_COLUMNS)), target / "queries" / f"{split}.parquet")
            _write_rows(qrels_table(dataset.qrels), target / "qrels" / f"{split}.parquet")
        held = {"corpus": corpora, "queries": splits, "qrels": splits}
        pattern = {"corpus": "-*", "queries": "", "qrels": ""}
        configs = [
            {
                "config_name": config,
                "data_files": [{"split": s, "path": f"{config}/{s}{pattern[config]}.parquet"} for s in held[config]],
            }
            for config in CONFIGS
        ]
        header = hub.DatasetCardData(**dict(metadata or {}), configs=configs).to_yaml()
        (target / "README.md").write_text(f"---\n{header}\n---\n\n{card.strip()}\n", encoding="utf-8")


def _write_corpus(corpus: datasets.Dataset, folder: Path, split: str) -> None:
    plain = corpus.select_columns(list(CORPUS_COLUMNS))
    if plain.features != corpus_features():
        plain = plain.cast(corpus_features())
    files = max(1, -(-len(plain) // ROWS_PER_FILE))
    for i in range(files):
        rows = plain.select(range(i * ROWS_PER_FILE, min((i + 1) * ROWS_PER_FILE, len(plain))))
        _write_rows(rows, folder / f"{split}-{i:05d}-of-{files:05d}.parquet")


def _write_rows(rows: datasets.Dataset, path: Path) -> None:
    """Write rows batch by batch, image files embedded."""
    parquet = require("pyarrow.parquet", extra="eval")
    embed_table_storage = require("datasets.table", extra="eval").embed_table_storage
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(path, rows.features.arrow_schema) as writer:
        if len(rows):
            for batch in rows.with_format("arrow").iter(batch_size=ROWS_PER_BATCH):
                writer.write_table(embed_table_storage(batch).cast(rows.features.arrow_schema))


class Format(NamedTuple):
    """A way to read retrieval data: how to recognise a path, and how to read one split of it."""

    recognises: Callable[[str], bool]
    read: Callable[[str, str], RetrievalDataset]


def load_retrieval_dataset(path_or_id: str | Path, split: str = "test", format: str = "auto") -> RetrievalDataset:  # noqa: A002
    """Load one split of a retrieval data set.

    Args:
        path_or_id: A folder, or the id of a data set on the Hugging Face Hub.
        split: ``"train"``, ``"dev"`` or ``"test"``, or whatever the data set calls its splits.
        format: A key of :data:`FORMATS`, or ``"auto"``: the first that recognises the path.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the format is unknown, none recognises the path, or the data are not in the form it asks for.
    """
    path = str(path_or_id)
    if format != "auto":
        if format not in FORMATS:
            raise ValueError(f"format must be 'auto' or one of {sorted(FORMATS)}, got {format!r}")
        return FORMATS[format].read(path, split)
    for candidate in FORMATS.values():
        if candidate.recognises(path):
            return candidate.read(path, split)
    if not Path(path).exists():
        raise FileNotFoundError(
            f"path_or_id: there is nothing at {path!r}, and it is no data set id such as 'owner/name'"
        )
    raise ValueError(f"path_or_id: {path!r} is in none of the known forms {sorted(FORMATS)}; name one with `format`")


def _is_hub_id(path: str) -> bool:
    return not Path(path).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None


def _recognises_own_form(path: str) -> bool:
    return _is_hub_id(path) or any((Path(path) / config).is_dir() for config in CONFIGS)


def _read_own_form(path: str, split: str) -> RetrievalDataset:
    queries = _read_config(path, "queries", split, QUERY_COLUMNS)
    qrels: Qrels = {}
    judged = _read_config(path, "qrels", split, QRELS_COLUMNS)
    for query, document, score in zip(*(column_values(judged, column) for column in QRELS_COLUMNS), strict=True):
        qrels.setdefault(str(query), {})[str(document)] = int(score)
    corpus = _read_config(path, "corpus", split, CORPUS_COLUMNS)
    return RetrievalDataset(corpus, queries, qrels, Path(path).name, split)


def _read_config(path: str, config: str, split: str, columns: tuple[str, ...]) -> datasets.Dataset:
    """Read one split of a configuration, memory-mapped; a corpus with one split serves every split."""
    datasets = require("datasets", extra="eval")
    files = {} if _is_hub_id(path) else _local_files(Path(path), config)
    splits = sorted(files) or datasets.get_dataset_split_names(path, config)
    chosen = splits[0] if config == "corpus" and len(splits) == 1 else split
    if chosen not in splits:
        raise ValueError(f"{path}: {config} has no split {split!r}; it has {splits}")
    if files:
        table = datasets.load_dataset("parquet", data_files={chosen: files[chosen]}, split=chosen)
    else:
        table = datasets.load_dataset(path, config, split=chosen)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        where = files[chosen][0] if files else f"{path}, configuration {config}"
        raise ValueError(f"{where}: no column {missing}; it has {table.column_names}")
    return table


def _local_files(folder: Path, config: str) -> dict[str, list[str]]:
    """List a configuration's parquet files by split: ``{split}.parquet`` or ``{split}-00000-of-00001.parquet``."""
    found: dict[str, list[str]] = {}
    for file in sorted((folder / config).glob("*.parquet")):
        found.setdefault(re.sub(r"-\d+(-of-\d+)?$", "", file.stem), []).append(str(file))
    if not found:
        raise FileNotFoundError(f"{folder / config} holds no parquet file; a data set needs {', '.join(CONFIGS)}")
    return found


FORMATS: dict[str, Format] = {"parquet": Format(_recognises_own_form, _read_own_form)}
