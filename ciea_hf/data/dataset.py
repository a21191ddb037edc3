"""A retrieval data set in memory: corpus, queries and judgements."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ciea_hf.data.images import EncodedImage, file_size, image_bytes, location_in_folder
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import datasets
    import pyarrow as pa

logger = logging.getLogger(__name__)

Qrels = dict[str, dict[str, int]]

CORPUS_COLUMNS = ("id", "text", "image", "modality")
QUERY_COLUMNS = ("id", "text")
QRELS_COLUMNS = ("query-id", "corpus-id", "score")
MODALITIES = ("text", "image", "image,text")

METADATA_COLUMN = "metadata"  # further fields of JSON lines, as a JSON object

SHARED_SPLIT = "corpus"  # name of a corpus that all splits share
ROWS_PER_BATCH = 500  # rows read and hashed at once
FINGERPRINTED_IMAGES = 64


@dataclass(frozen=True, eq=False)
class RetrievalDataset:
    """Queries, their corpus, and judgements of relevance.

    Args:
        corpus: Columns `id` (str), `text` (str or `None`), `image` (`datasets.Image` or `None`, decoded when a row is
            read) and `modality` (`"text"`, `"image"` or `"image,text"`).
        queries: Columns `id` and `text`.
        qrels: `{query id: {document id: score}}`; a score above 0 is relevant.
        name: Name of the data set in tables and cards.
        split: `"train"`, `"dev"` or `"test"`.
        vocabulary: Words of other splits, for a tokenizer that is trained on this split's texts.

    Raises:
        ValueError: If a column is missing.
    """

    corpus: datasets.Dataset
    queries: datasets.Dataset
    qrels: Qrels
    name: str
    split: str
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, columns in (("corpus", CORPUS_COLUMNS), ("queries", QUERY_COLUMNS)):
            found = getattr(self, part).column_names
            missing = [column for column in columns if column not in found]
            if missing:
                raise ValueError(f"{self.name}/{self.split}: {part} has no column {missing}; it has {found}")

    @cached_property
    def corpus_ids(self) -> list[str]:
        """Document ids in the order of the corpus."""
        return column_values(self.corpus, "id")

    @cached_property
    def document_kinds(self) -> dict[str, str]:
        """Kind of each document: `"image"`, with or without a caption, or `"text"`. No image is decoded."""
        modalities = column_values(self.corpus, "modality")
        unknown = sorted({str(modality) for modality in modalities} - set(MODALITIES))
        if unknown:
            raise ValueError(
                f"{self.name}/{self.split}: modality must be one of {', '.join(MODALITIES)}; got {unknown[:3]}"
            )
        return {
            document: "text" if modality == "text" else "image"
            for document, modality in zip(self.corpus_ids, modalities, strict=True)
        }

    @cached_property
    def query_texts(self) -> dict[str, str]:
        """Texts of all queries by id, in the order of the data set."""
        return dict(zip(column_values(self.queries, "id"), column_values(self.queries, "text"), strict=True))

    @cached_property
    def copies(self) -> dict[str, frozenset[str]]:
        """Ids of the documents that equal a document, itself included, by its id; without those that are unique."""
        from ciea_hf.data.copies import document_copies

        return document_copies(self)

    def encoded_images(self) -> datasets.Dataset:
        """Return the images of the corpus as bytes or paths, which are not decoded."""
        images = self.corpus.select_columns(["image"])
        return images.cast_column("image", import_optional("datasets", extra="eval").Image(decode=False))

    def relevant(self, query: str) -> set[str]:
        """Return the ids of the documents that are relevant to a query: those judged above 0."""
        return {document for document, score in self.qrels.get(query, {}).items() if score > 0}

    def judged_queries(self) -> dict[str, str]:
        """Return id and text of the queries that have judgements, in the order of the data set.

        Raises:
            ValueError: If there are no such queries.
        """
        queries = {name: text for name, text in self.query_texts.items() if self.qrels.get(name)}
        if not queries:
            raise ValueError(f"{self.name}/{self.split}: no query has a judgement")
        absent = [name for name, judgements in self.qrels.items() if judgements and name not in queries]
        if absent:
            logger.warning("%d judged queries have no text (%s ...): they score 0", len(absent), absent[0])
        return queries

    def select(self, rows: Sequence[int]) -> RetrievalDataset:
        """Return the data set with only these rows of the corpus."""
        return dataclasses.replace(self, corpus=self.corpus.select(rows))

    def query_kinds(self) -> dict[str, str]:
        """Return the kind of each query's positives: `"image"`, `"text"` or `"mixed"`; queries without any are omitted.

        Raises:
            ValueError: If a judged document is not in the corpus.
        """
        kinds: dict[str, str] = {}
        for query, judged in self.qrels.items():
            positives = [document for document, score in judged.items() if score > 0]
            absent = next((document for document in positives if document not in self.document_kinds), None)
            if absent is not None:
                raise ValueError(
                    f"{self.name}/{self.split}: query {query!r} judges {absent!r}, which is not in the corpus"
                )
            found = {self.document_kinds[document] for document in positives}
            if found:
                kinds[query] = found.pop() if len(found) == 1 else "mixed"
        return kinds

    @cached_property
    def corpus_fingerprint(self) -> str:
        """Hash of the corpus, equal in every process: ids, texts, metadata, and the images' sizes in bytes.

        The bytes of only 64 images, spread over the corpus, are hashed, so that it is fast for a large corpus.
        """
        digest = hashlib.sha256()
        for column in ("id", "text", "modality", *further_columns(self.corpus.features.arrow_schema)):
            digest.update(repr(column_values(self.corpus, column)).encode())
        _hash_images(self.corpus, digest)
        return digest.hexdigest()[:32]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of corpus, queries and judgements, equal in every process."""
        digest = hashlib.sha256(self.corpus_fingerprint.encode())
        for column in QUERY_COLUMNS:
            digest.update(repr(column_values(self.queries, column)).encode())
        digest.update(repr(sorted((query, sorted(judged.items())) for query, judged in self.qrels.items())).encode())
        return digest.hexdigest()[:32]


def _hash_images(corpus: datasets.Dataset, digest: hashlib._Hash) -> None:
    compute = import_optional("pyarrow.compute", extra="eval")
    encoded = corpus.select_columns(["image"]).with_format("arrow")
    if len(encoded) == 0:
        return
    for batch in encoded.iter(batch_size=ROWS_PER_BATCH):
        digest.update(repr(compute.binary_length(compute.struct_field(batch["image"], "bytes")).to_pylist()).encode())
        paths = compute.struct_field(batch["image"], "path").to_pylist()
        digest.update(repr([path and location_in_folder(path) for path in paths]).encode())
        empty = compute.is_null(compute.struct_field(batch["image"], "bytes")).to_pylist()
        sizes = [file_size(path) for path, without_bytes in zip(paths, empty, strict=True) if path and without_bytes]
        digest.update(repr(sizes).encode() if any(sizes) else b"")
    step = max(1, len(encoded) // FINGERPRINTED_IMAGES)
    for image in encoded.select(range(0, len(encoded), step))[:]["image"].to_pylist():
        digest.update(_content(image))


def _content(image: EncodedImage | None) -> bytes:
    try:
        return b"-" if image is None else image_bytes(image)
    except (OSError, ValueError):  # missing or broken in every process alike
        return b"-"


def column_values(dataset: datasets.Dataset, column: str) -> list[Any]:
    """Return one column as a list, without reading the others, such as images."""
    values: list[Any] = dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    return values


def further_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a corpus that are metadata: all further ones, except binary data and images."""
    return [
        name for name in schema.names if name not in CORPUS_COLUMNS and "binary" not in str(schema.field(name).type)
    ]


def unpack_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a field `metadata` that holds a JSON object with the other fields."""
    packed = row.get(METADATA_COLUMN)
    try:
        content = json.loads(packed) if isinstance(packed, str) else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return dict(row)
    return content | {name: value for name, value in row.items() if name != METADATA_COLUMN}


def corpus_features(with_metadata: bool = False) -> datasets.Features:
    """Return the columns of a corpus as `datasets.Features`."""
    datasets = import_optional("datasets", extra="eval")
    text = datasets.Value("string")
    features = {"id": text, "text": text, "image": datasets.Image(), "modality": text}
    return datasets.Features(features | ({METADATA_COLUMN: text} if with_metadata else {}))


def corpus_from_columns(ids: Sequence[str], texts: Sequence[str | None], images: Sequence[Any]) -> datasets.Dataset:
    """Create a corpus from parallel columns.

    Args:
        ids: Document ids.
        texts: Texts or captions, or `None`.
        images: Images that `datasets.Image` can encode (a path, a PIL image, a dict of bytes and path), bytes of image
            files, or `None`.

    Raises:
        ValueError: If ids repeat, a document is empty, a text contains half of a surrogate pair, or the columns differ
            in length.
    """
    if len(set(ids)) != len(ids):
        raise ValueError(f"`ids` must be unique; got {len(ids)} of which {len(set(ids))} are different")
    from ciea_hf.modeling.errors_ciea import place
    from ciea_hf.modeling.inputs_ciea import check_text, input_kind  # late: it imports torch

    for name, text in zip(ids, texts, strict=True):
        with place(f"document {name!r}"):
            check_text(text or "")
    encoded = [{"bytes": image, "path": None} if isinstance(image, bytes) else image for image in images]
    columns = {
        "id": list(ids),
        "text": list(texts),
        "image": encoded,
        "modality": [input_kind(text, image) for text, image in zip(texts, encoded, strict=True)],
    }
    return import_optional("datasets", extra="eval").Dataset.from_dict(columns, features=corpus_features())


def corpus_table(
    rows: Sequence[tuple[str, str | None, Mapping[str, Any] | None]], metadata: Sequence[str | None] | None = None
) -> pa.Table:
    """Create rows of a corpus.

    Args:
        rows: Ids, texts and encoded images (dicts of bytes and path).
        metadata: Further fields of the rows, as JSON objects; without the column if `None`.
    """
    from ciea_hf.modeling.inputs_ciea import input_kind  # late: it imports torch

    arrow = import_optional("pyarrow", extra="eval")
    columns = [
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [input_kind(row[1], row[2]) for row in rows],
        *([] if metadata is None else [list(metadata)]),
    ]
    schema = corpus_features(metadata is not None).arrow_schema
    return arrow.Table.from_arrays(
        [arrow.array(values, type=kind) for values, kind in zip(columns, schema.types, strict=True)], schema=schema
    )


def corpus_of_tables(tables: Iterable[pa.Table]) -> datasets.Dataset:
    """Create a corpus from tables of rows."""
    table = import_optional("pyarrow", extra="eval").concat_tables(tables)
    return import_optional("datasets", extra="eval").Dataset(table)


def queries_from_columns(ids: Sequence[str], texts: Sequence[str]) -> datasets.Dataset:
    """Create the queries of a data set from parallel columns."""
    datasets = import_optional("datasets", extra="eval")
    features = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"id": list(ids), "text": list(texts)}, features=features)


def qrels_table(qrels: Mapping[str, Mapping[str, int]]) -> datasets.Dataset:
    """Create the table of judgements, with a row per query and document."""
    datasets = import_optional("datasets", extra="eval")
    rows = [(query, document, score) for query, judged in qrels.items() for document, score in judged.items()]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = [datasets.Value("string"), datasets.Value("string"), datasets.Value("int64")]
    features = datasets.Features(dict(zip(QRELS_COLUMNS, kinds, strict=True)))
    return datasets.Dataset.from_dict(dict(zip(QRELS_COLUMNS, map(list, columns), strict=True)), features=features)
