"""Encoding of a corpus, shard by shard: resumable, shared by processes and machines, and open to growth.

A plan lists the shards to encode; it follows from the data set and the index alone, so every process has the same one.
A process takes a shard by its lock, which the operating system releases if the process dies, and writes the shard
atomically. Whoever finds all shards of the plan complete writes the manifest. A remote folder has no locks between
machines: each takes its own share first, and two that encode the same shard write the same bytes.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from ciea_hf.retrieval.corpus import EncodedCorpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import Encoder, EncodingOptions, encode_documents
from ciea_hf.retrieval.folder import load_corpus
from ciea_hf.retrieval.plans import Plan, PlannedShard, commit, index_settings, make_plan
from ciea_hf.retrieval.progress import ShardProgress
from ciea_hf.retrieval.segment import Segment, make_segment
from ciea_hf.retrieval.shards import find_shard, locked, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ciea_hf.data import RetrievalDataset

logger = logging.getLogger(__name__)

POLL = 1.0  # seconds between looks at the shards of other processes


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
        folder: Index folder, or its URL, such as `s3://bucket/data.index`, which an interrupted call continues to fill.
            Several processes, also on several machines, may fill it at once. In memory if `None`.
        view: Documents as inputs; whole documents if `None`.
        options: Batch size, precision, shard size and so on.
        source: Origin of the data set, such as `{"path": ..., "format": ...}`. It is kept in the manifest, so that a
            search can find the images again.

    Returns:
        The embeddings with their records; memory-mapped if `folder` is given, for a URL from a copy in the cache.

    Raises:
        ValueError: If the folder holds embeddings of another model, corpus or precision, or an embedding is not finite.
    """
    if folder is not None:
        encode_shards(model, dataset, folder, view, options, source)
        return load_corpus(folder)
    options = options or EncodingOptions()
    view = view or DocumentView(dataset)
    rows = range(len(view))
    segments = [
        encode_shard(model, view, rows[start : start + options.shard_size], options)
        for start in range(0, len(rows), options.shard_size)
    ]
    return EncodedCorpus(segments, index_settings(model, dataset, view, options, source))


def encode_shards(
    model: Encoder,
    dataset: RetrievalDataset,
    folder: str | os.PathLike[str],
    view: DocumentView | None = None,
    options: EncodingOptions | None = None,
    source: Mapping[str, str] | None = None,
    shard: tuple[int, int] | None = None,
    append: bool = False,
) -> int:
    """Encode the missing shards of an index folder, until it is complete.

    Args:
        model: Encoder.
        dataset: Data set whose corpus is encoded.
        folder: Index folder, or its URL. Complete shards are kept.
        view: Documents as inputs; whole documents if `None`.
        options: Batch size, precision, shard size and so on.
        source: Origin of the data set, kept in the manifest.
        shard: Index of this process, from 0, and the number of processes: only its share is encoded. If `None`, all
            missing shards are, except those that other processes are working on, which are waited for.
        append: Whether to add new documents and replace changed ones in a complete index; see [`append_documents`].

    Returns:
        Number of shards that are still missing.

    Raises:
        ValueError: As [`encode_corpus`], or if `shard` is invalid.
    """
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise ValueError(f"`shard` must be (index, processes) with 0 <= index < processes; got {shard}")
    options = options or EncodingOptions()
    view = view or DocumentView(dataset)
    plan = make_plan(model, dataset, folder, view, options, source, append)
    with ShardProgress(plan.folder, plan.shards, options.show_progress_bar) as progress:

        def encode(planned: PlannedShard) -> Segment:
            return encode_shard(model, view, planned.rows, options, progress.advance)

        if shard is not None:
            absent = {planned.name for planned in plan.missing}
            for planned in plan.shards[shard[0] :: shard[1]]:
                if planned.name in absent:
                    _take(plan, planned, encode)
        else:
            _take_all(plan, encode, progress)
    missing = len(plan.missing)
    if not missing:
        commit(plan)
    return missing


def encode_shard(
    model: Encoder,
    view: DocumentView,
    rows: Sequence[int],
    options: EncodingOptions,
    report: Callable[[int], None] | None = None,
) -> Segment:
    """Encode some documents: a pure function, whose batches never contain other documents.

    Args:
        model: Encoder.
        view: Documents as inputs.
        rows: Rows of the corpus.
        options: Batch size, precision and so on.
        report: Called with the number of documents after each chunk.

    Returns:
        Embeddings, records and hashes of the documents.

    Raises:
        ValueError: As [`encode_documents`].
    """
    part = view.select(rows)
    embeddings, missing = encode_documents(model, part, 0, len(part), options, report)
    return make_segment(embeddings, part.records(), options.precision, part.content_hashes(), missing)


def _take_all(plan: Plan, encode: Callable[[PlannedShard], Segment], progress: ShardProgress) -> None:
    """Encode all missing shards that no other process is working on, until none is missing."""
    rank, world = launched_as()
    others = [shard for i, shard in enumerate(plan.shards) if i % world != rank]
    order = plan.shards[rank::world] + others[::-1]  # backwards, to meet their owners as late as possible
    while missing := {shard.name for shard in plan.missing}:
        worked = [_take(plan, planned, encode) for planned in order if planned.name in missing]
        progress.look()
        if not any(worked):
            time.sleep(POLL)


def _take(plan: Plan, planned: PlannedShard, encode: Callable[[PlannedShard], Segment]) -> bool:
    """Encode a shard unless it is complete or another process is working on it; return whether it was encoded."""
    if find_shard(plan.folder, planned.name) is not None:
        return False
    with locked(plan.folder, planned.name, wait=False) as mine:
        if not mine or find_shard(plan.folder, planned.name) is not None:
            return False
        write_shard(plan.folder, planned.name, encode(planned))
    logger.info("shard %s is encoded: %d documents", planned.name, len(planned.rows))
    return True


def launched_as() -> tuple[int, int]:
    """Return rank and number of processes, as torchrun, Accelerate, Slurm or Open MPI have set them.

    The environment is read rather than `accelerate.PartialState()`, which sees one process where there is no GPU.
    """
    for rank, world in (
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ):
        found = os.environ.get(rank, ""), os.environ.get(world, "")
        if all(value.isdecimal() for value in found) and int(found[0]) < int(found[1]):
            return int(found[0]), int(found[1])
    return 0, 1
