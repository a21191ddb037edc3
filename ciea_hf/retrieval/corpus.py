"""Embeddings of a corpus: in memory, or in a folder of memory-mapped shards that encoding can resume."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.documents import DocumentRecord, DocumentView, document_records
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, Shard, encode_documents, normalizes
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.index import FlatIndex
from ciea_hf.utils import atomic_write, claim_manifest, write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True)
class EncodedCorpus:
    """Embeddings of a corpus, with what a search result shows of each document.

    Attributes:
        shards: Matrices (documents of the shard, D), in memory or memory-mapped.
        records: Id, kind and text of every document, by position over all shards.
        source: What the manifest says of the data set: `name`, `split` and, if given, `path`.
        fingerprint: Fingerprint of the embedded [`DocumentView`].
        missing: Positions of documents without an embedding, which no search finds.
    """

    shards: list[NDArray[np.floating]]
    records: list[DocumentRecord]
    source: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    missing: tuple[int, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Document ids by position."""
        return [record.id for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def index(self, device: str | torch.device | None = None) -> FlatIndex:
        """Return an exact index of the embeddings; `device` computes the scores."""
        return FlatIndex(self.shards, self.ids, device, missing=self.missing)


def encode_corpus(
    model: Encoder,
    dataset: RetrievalDataset,
    folder: str | os.PathLike[str] | None = None,
    view: DocumentView | None = None,
    options: EncodingOptions | None = None,
    source: Mapping[str, str] | None = None,
) -> EncodedCorpus:
    """Embed every document of a corpus.

    Args:
        model: Encoder.
        dataset: Data set whose corpus is encoded.
        folder: Folder that receives the shards `embeddings-00000.npy` and so on, each written atomically. A second
            call with the same model and documents continues where the first one stopped. In memory if `None`.
        view: Documents as inputs; whole documents if `None`.
        options: Batch size, type, shard size and so on.
        source: Origin of the data set, such as `{"path": ..., "format": ...}`. It is kept in the manifest, so that a
            search can find the images again.

    Returns:
        The embeddings with their records; memory-mapped if `folder` is given.

    Raises:
        ValueError: If the folder holds embeddings of another model, corpus or type, or an embedding is not finite.
    """
    if folder is not None:
        encode_shards(model, dataset, folder, view, options, source)
        return load_corpus(folder)
    options = options or EncodingOptions()
    view = view or DocumentView(dataset)
    starts = range(0, len(view), options.shard_size)
    shards = [encode_documents(model, view, start, start + options.shard_size, options) for start in starts]
    return EncodedCorpus(
        [shard.embeddings for shard in shards],
        document_records(dataset),
        _origin(dataset, source),
        view.fingerprint,
        tuple(position for shard in shards for position in shard.missing),
    )


def encode_shards(
    model: Encoder,
    dataset: RetrievalDataset,
    folder: str | os.PathLike[str],
    view: DocumentView | None = None,
    options: EncodingOptions | None = None,
    source: Mapping[str, str] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> int:
    """Embed every n-th shard of a corpus, so that several processes or machines can fill one folder.

    Args:
        model: Encoder.
        dataset: Data set whose corpus is encoded.
        folder: Folder that receives the shards. Existing ones are kept.
        view: Documents as inputs; whole documents if `None`.
        options: Batch size, type, shard size and so on.
        source: Origin of the data set, kept in the manifest.
        shard: Index of this process, from 0, and the number of processes.

    Returns:
        Number of shards of the whole corpus that are still missing.

    Raises:
        ValueError: As [`encode_corpus`], or if `shard` is invalid.
    """
    index, processes = shard
    if not 0 <= index < processes:
        raise ValueError(f"`shard` must be (index, processes) with 0 <= index < processes; got {shard}")
    options = options or EncodingOptions()
    view = view or DocumentView(dataset)
    target = Path(folder)
    _claim_folder(target, model, view, options, _origin(dataset, source))
    _write_records(target / DOCUMENTS, dataset)
    starts = range(0, len(view), options.shard_size)
    for number in range(index, len(starts), processes):
        if _shard_path(target, number).exists():
            logger.info("%s already exists", _shard_path(target, number).name)
            continue
        stop = starts[number] + options.shard_size
        _write_shard(target, number, encode_documents(model, view, starts[number], stop, options))
    return sum(not _shard_path(target, number).exists() for number in range(len(starts)))


def is_encoded_corpus(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder was written by [`encode_corpus`], complete or not."""
    return all((Path(folder) / name).is_file() for name in (MANIFEST, DOCUMENTS))


def load_corpus(folder: str | os.PathLike[str], model: Encoder | None = None) -> EncodedCorpus:
    """Open an encoded corpus, memory-mapped.

    Args:
        folder: Folder that [`encode_corpus`] has written.
        model: Model that will encode the queries: checked against the one that encoded the documents.

    Returns:
        The embeddings with their records.

    Raises:
        FileNotFoundError: If the folder is not an encoded corpus.
        ValueError: If shards are missing or do not match the manifest, or another model encoded them.
    """
    target = Path(folder)
    if not (target / MANIFEST).is_file():
        raise FileNotFoundError(f"{target} is not an encoded corpus: {MANIFEST} not found")
    manifest = _read_manifest(target)
    if model is not None and manifest["model"] != model_fingerprint(model):
        raise ValueError(f"{target} was encoded by another model than the one given")
    records = _read_records(target / DOCUMENTS)
    numbers = range(-(-manifest["documents"] // manifest["shard_size"]))
    absent = [_shard_path(target, number).name for number in numbers if not _shard_path(target, number).exists()]
    if absent:
        raise ValueError(f"{target} is incomplete: {len(absent)} of {len(numbers)} shards are missing ({absent[0]})")
    shards = [np.load(_shard_path(target, number), mmap_mode="r") for number in numbers]
    if len(records) != manifest["documents"] or sum(map(len, shards)) != len(records):
        raise ValueError(
            f"{target} is inconsistent: {manifest['documents']} documents in {MANIFEST}, {len(records)} in "
            f"{DOCUMENTS}, {sum(map(len, shards))} embeddings"
        )
    missing: list[int] = []
    for number in numbers:
        path = _missing_path(target, number)
        missing += json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return EncodedCorpus(shards, records, manifest["source"], manifest["corpus"], tuple(missing))


def _origin(dataset: RetrievalDataset, source: Mapping[str, str] | None) -> dict[str, str]:
    return {"name": dataset.name, "split": dataset.split} | dict(source or {})


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"embeddings-{number:05d}.npy"


def _missing_path(folder: Path, number: int) -> Path:
    return folder / f"missing-{number:05d}.json"


def _write_shard(folder: Path, number: int, shard: Shard) -> None:
    """Write a shard; it counts once its embeddings are there, so they come last."""
    if shard.missing:
        write_json(_missing_path(folder, number), shard.missing, indent=None)
    else:
        _missing_path(folder, number).unlink(missing_ok=True)
    with atomic_write(_shard_path(folder, number)) as temporary, temporary.open("wb") as file:
        np.save(file, shard.embeddings)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read: {error}") from error
    required = ("model", "corpus", "documents", "shard_size", "source", "on_broken_image")
    if not isinstance(content, dict) or any(name not in content for name in required):
        raise ValueError(f"{folder} is not an encoded corpus: {MANIFEST} has an unexpected format")
    return content


def _claim_folder(
    folder: Path, model: Encoder, view: DocumentView, options: EncodingOptions, source: dict[str, str]
) -> None:
    """Write the manifest, or check that the folder's embeddings belong to the same model, documents and type.

    Embeddings made under the policy `"fail"` contain no broken image, so any other policy may complete them.
    """
    path = folder / MANIFEST
    ignored = ["source"]
    found = _read_manifest(folder) if path.exists() else None
    if found is not None and found["on_broken_image"] == "fail":
        ignored.append("on_broken_image")
    manifest = {
        "model": model_fingerprint(model),
        "corpus": view.fingerprint,
        "documents": len(view),
        "normalized": normalizes(model),
        "on_broken_image": view.on_broken_image,
        "dtype": options.dtype,
        "shard_size": options.shard_size,
        "source": source,
    }
    claim_manifest(path, manifest, ignored)
    if found is not None and found["on_broken_image"] != view.on_broken_image:
        write_json(path, {**found, "on_broken_image": view.on_broken_image})


def _write_records(path: Path, dataset: RetrievalDataset) -> None:
    if path.exists():
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in document_records(dataset):
            file.write(json.dumps(record._asdict(), ensure_ascii=False) + "\n")


def _read_records(path: Path) -> list[DocumentRecord]:
    with path.open(encoding="utf-8") as file:
        return [DocumentRecord(**json.loads(line)) for line in file]
