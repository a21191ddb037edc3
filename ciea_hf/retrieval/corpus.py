"""Embeddings of a corpus: in memory, or in a folder of memory-mapped shards that encoding can resume."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.documents import DocumentRecord, DocumentView, document_records
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_documents, normalizes
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

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
        source: What the manifest says of the data set: ``name``, ``split`` and, if given, ``path``.
        fingerprint: Of the :class:`DocumentView` that was embedded.
    """

    shards: list[NDArray[np.floating]]
    records: list[DocumentRecord]
    source: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def ids(self) -> list[str]:
        """Document ids by position."""
        return [record.id for record in self.records]

    def __len__(self) -> int:
        return len(self.records)


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
        model: The encoder.
        dataset: Its corpus is encoded.
        folder: Where shards are kept as ``embeddings-00000.npy`` and so on, each written at once. A second call
            with the same model and documents goes on where the first one stopped. In memory if None.
        view: The documents as inputs; whole documents if None.
        options: Batch size, type, shard size and so on.
        source: Where the data set came from, such as ``{"path": ..., "format": ...}``: noted in the manifest, so that a
            search can find the pictures again.

    Returns:
        The embeddings with their records; memory-mapped if ``folder`` is given.

    Raises:
        ValueError: If the folder holds embeddings of another model, corpus or type, or an embedding is not finite.
    """
    if folder is not None:
        encode_shards(model, dataset, folder, view, options, source)
        return load_corpus(folder)
    options = options or EncodingOptions()
    view = view or DocumentView(dataset)
    records = document_records(dataset)
    starts = range(0, len(view), options.shard_size)
    shards = [encode_documents(model, view, records, start, options) for start in starts]
    return EncodedCorpus(shards, records, _origin(dataset, source), view.fingerprint)


def encode_shards(
    model: Encoder,
    dataset: RetrievalDataset,
    folder: str | os.PathLike[str],
    view: DocumentView | None = None,
    options: EncodingOptions | None = None,
    source: Mapping[str, str] | None = None,
    part: tuple[int, int] = (0, 1),
) -> int:
    """Embed every n-th shard of a corpus, so that several processes or machines can fill one folder.

    Args:
        model: As for :func:`encode_corpus`, and so are those that follow.
        dataset: Its corpus is encoded.
        folder: Where shards are kept. Those that are there already are left alone.
        view: The documents as inputs.
        options: Batch size, type, shard size and so on.
        source: Where the data set came from.
        part: This process's number, from 0, and the number of processes.

    Returns:
        How many shards of the whole corpus are still missing.

    Raises:
        ValueError: As :func:`encode_corpus`, or if ``part`` is not a number and a higher number of processes.
    """
    number, processes = part
    if not 0 <= number < processes:
        raise ValueError(f"part must be a number from 0 and a higher number of processes; got {number} and {processes}")
    options = options or EncodingOptions()
    view = view or DocumentView(dataset)
    records = document_records(dataset)
    target = Path(folder)
    _claim_folder(target, _manifest(model, view, options, _origin(dataset, source)))
    _write_records(target / DOCUMENTS, records)
    shards = {target / _shard_name(i): start for i, start in enumerate(range(0, len(view), options.shard_size))}
    for path in list(shards)[number::processes]:
        if path.exists():
            logger.info("%s is there already", path.name)
            continue
        shard = encode_documents(model, view, records, shards[path], options)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, shard)
    return sum(not path.exists() for path in shards)


def is_encoded_corpus(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder was written by :func:`encode_corpus`, be it complete or not."""
    return all((Path(folder) / name).is_file() for name in (MANIFEST, DOCUMENTS))


def load_corpus(folder: str | os.PathLike[str], model: Encoder | None = None) -> EncodedCorpus:
    """Open an encoded corpus, memory-mapped.

    Args:
        folder: A folder that :func:`encode_corpus` has written.
        model: The model that will encode the queries: checked against the one that encoded the documents.

    Returns:
        The embeddings with their records.

    Raises:
        FileNotFoundError: If the folder is no encoded corpus.
        ValueError: If shards are missing or do not fit the manifest, or another model encoded them.
    """
    target = Path(folder)
    if not (target / MANIFEST).is_file():
        raise FileNotFoundError(f"{target} is no encoded corpus: it holds no {MANIFEST}")
    manifest = _read_manifest(target)
    if model is not None and manifest["model"] != model_fingerprint(model):
        raise ValueError(f"{target} was encoded by another model than the one given")
    records = _read_records(target / DOCUMENTS)
    numbers = range(-(-manifest["documents"] // manifest["shard_size"]))
    missing = [_shard_name(number) for number in numbers if not (target / _shard_name(number)).exists()]
    if missing:
        raise ValueError(
            f"{target} is not complete: {len(missing)} of {len(numbers)} shards are missing ({missing[0]})"
        )
    shards = [np.load(target / _shard_name(number), mmap_mode="r") for number in numbers]
    if len(records) != manifest["documents"] or sum(map(len, shards)) != len(records):
        raise ValueError(
            f"{target} is broken: {manifest['documents']} documents in {MANIFEST}, {len(records)} in {DOCUMENTS}, "
            f"{sum(map(len, shards))} embeddings"
        )
    return EncodedCorpus(shards, records, manifest["source"], manifest["corpus"])


def _origin(dataset: RetrievalDataset, source: Mapping[str, str] | None) -> dict[str, str]:
    return {"name": dataset.name, "split": dataset.split} | dict(source or {})


def _shard_name(number: int) -> str:
    return f"embeddings-{number:05d}.npy"


def _manifest(model: Encoder, view: DocumentView, options: EncodingOptions, source: dict[str, str]) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(options).items() if name in ("dtype", "shard_size")}
    return {
        "model": model_fingerprint(model),
        "corpus": view.fingerprint,
        "documents": len(view),
        "normalized": normalizes(model),
        "on_broken_image": view.on_broken_image,
        **kept,
        "source": source,
    }


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read: {error}") from error
    needed = ("model", "corpus", "documents", "shard_size", "source", "on_broken_image")
    if not isinstance(content, dict) or any(name not in content for name in needed):
        raise ValueError(f"{folder} is no encoded corpus: its {MANIFEST} is of something else")
    return content


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _claim_folder(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / MANIFEST
    if not path.exists():
        _write_manifest(path, manifest)
        return
    found = _read_manifest(folder)
    # what broken pictures would have stopped holds none: the rest may be read in another way
    free = ("source", "on_broken_image") if found["on_broken_image"] == "fail" else ("source",)
    differing = [name for name in manifest if name not in free and manifest[name] != found.get(name)]
    if differing:
        raise ValueError(
            f"{folder} holds embeddings with another {', '.join(differing)}: choose another folder, or delete this one"
        )
    if found["on_broken_image"] != manifest["on_broken_image"]:
        _write_manifest(path, {**found, "on_broken_image": manifest["on_broken_image"]})


def _write_records(path: Path, records: Sequence[DocumentRecord]) -> None:
    if path.exists():
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record._asdict(), ensure_ascii=False) + "\n" for record in records)


def _read_records(path: Path) -> list[DocumentRecord]:
    with path.open(encoding="utf-8") as file:
        return [DocumentRecord(**json.loads(line)) for line in file]
