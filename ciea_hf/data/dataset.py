"""A retrieval data set in memory: corpus, queries and judgements."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ciea_hf.data.columns import CORPUS_COLUMNS, MODALITIES, QUERY_COLUMNS, column_values
from ciea_hf.data.images import EncodedImage, file_size, image_bytes, location_in_folder
from ciea_hf.utils import require

if TYPE_CHECKING:
    import datasets

Qrels = dict[str, dict[str, int]]

SHARED_SPLIT = "corpus"  # what the one corpus is called that serves every split
ROWS_PER_BATCH = 500  # rows read and hashed at once
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
    except (OSError, ValueError):  # missing or broken: so it is for everybody
        return b"-"
