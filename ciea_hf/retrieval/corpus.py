"""An encoded corpus: embeddings and records of documents, in memory or in an index folder, which can change."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.filters import check_fields, matches, parse_filter
from ciea_hf.retrieval.precision import truncate
from ciea_hf.retrieval.results import as_matrix, check_new_ids
from ciea_hf.retrieval.segment import METADATA, Segment, make_segment
from ciea_hf.retrieval.shards import (
    segment_digest,
)
from ciea_hf.utils import import_optional, short_hash

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from ciea_hf.retrieval.filters import Filter
    from ciea_hf.retrieval.indexes.base import CorpusIndex
    from ciea_hf.retrieval.records import DocumentRecord
    from ciea_hf.retrieval.results import Matrix

SETTINGS = ("model", "corpus", "normalized", "on_broken_image", "precision", "truncate_dim", "shard_size", "source")
_CACHED_FILTERS = 16


class EncodedCorpus:
    """Embeddings of documents with their ids, kinds, texts and metadata.

    Documents have positions, which count all that were ever added; those that are deleted, or have no embedding, are
    never found. Indexes compute scores from a corpus and share it.

    Args:
        segments: Stored embeddings and records.
        settings: What the embeddings depend on: `model` and `corpus` (fingerprints), `precision`, `source` and so on.
        deleted: Deleted rows of each segment; none if `None`.

    Attributes:
        segments: As given; further ones follow as documents are added.
        settings: As given.
        live: (positions,) bool, false for documents that are deleted or have no embedding.
        kept: (positions,) bool, false for deleted documents alone.
        starts: First position of each segment, and the number of positions.
        shard_names: Names of the segments in their index folder; `None` for segments in memory.
        version: Number of changes since the corpus was opened.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        settings: dict[str, Any] | None = None,
        deleted: Sequence[Sequence[int]] | None = None,
    ) -> None:
        widths = {segment.dimension for segment in segments if len(segment)}
        if len(widths) > 1:
            raise ValueError(f"shards must have one width; got {sorted(widths)}")
        self.segments = list(segments)
        self.settings = {"precision": "float32", "source": {}, **(settings or {})}
        self.live = np.concatenate([np.ones(0, dtype=bool), *(_live(segment) for segment in segments)])
        self.kept = np.ones(len(self.live), dtype=bool)
        self.version = 0
        self.shard_names: list[str | None] = [None] * len(self.segments)
        self._filters: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self.starts = np.cumsum([0, *map(len, self.segments)])
        for start, rows in zip(self.starts, deleted or [], strict=False):
            self._delete(start + np.array(rows, dtype=np.int64))
        self.version = 0

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Matrix | Sequence[Matrix],
        ids: Sequence[str],
        missing: Sequence[int] = (),
        precision: str = "float32",
    ) -> EncodedCorpus:
        """Create a corpus in memory from embeddings alone.

        Args:
            embeddings: One matrix (documents, D) or several (shards).
            ids: Document ids by position.
            missing: Positions of documents without an embedding.
            precision: Storage precision.

        Raises:
            ValueError: If ids and embeddings differ in number, ids repeat, or the matrices differ in width.
        """
        from ciea_hf.retrieval.records import DocumentRecord

        matrices: list[Any] = list(embeddings) if isinstance(embeddings, list | tuple) else [embeddings]
        counts = [len(matrix) for matrix in matrices]
        if sum(counts) != len(ids):
            raise ValueError(f"`embeddings` and `ids` must be equally many; got {sum(counts)} and {len(ids)}")
        records = [DocumentRecord(name) for name in ids]
        check_new_ids(records)
        segments, start = [], 0
        for count, matrix in zip(counts, matrices, strict=True):
            gone = [row - start for row in missing if start <= row < start + count]
            rows = as_matrix(matrix, name="embeddings")
            segments.append(make_segment(rows, records[start : start + count], precision, missing=gone))
            start += count
        return cls(segments, {"precision": precision})

    @property
    def dimension(self) -> int:
        """Width of the embeddings; 0 for a corpus without documents."""
        return next((segment.dimension for segment in self.segments if len(segment)), 0)

    @property
    def ids(self) -> list[str]:
        """Ids of all documents that are not deleted, by position; those without an embedding are included."""
        return self.names(np.flatnonzero(self.kept))

    @property
    def source(self) -> dict[str, str]:
        """Origin of the data set: `name`, `split` and, if known, `path`."""
        source: dict[str, str] = self.settings["source"]
        return source

    @property
    def fields(self) -> set[str]:
        """Names of the metadata."""
        columns = {name for segment in self.segments for name in segment.table.column_names}
        return {name.removeprefix(METADATA) for name in columns if name.startswith(METADATA)}

    @property
    def state(self) -> str:
        """Hash of the documents, for files that are derived from them."""
        parts = [segment.digest or segment_digest(segment) for segment in self.segments]
        return short_hash(json.dumps([parts, np.flatnonzero(~self.live).tolist()]), 16)

    def __len__(self) -> int:
        return int(self.kept.sum())

    def index(self, kind: str = "auto", device: str | torch.device | None = None) -> CorpusIndex:
        """Return an index of the embeddings.

        Args:
            kind: `"flat"` (exact), `"scan"` (1-bit codes, rescored), `"faiss"`, or `"auto"`, which is `"flat"` for up
                to 50,000 documents and `"scan"` beyond.
            device: Device that computes the scores of several queries; the CPU by default.
        """
        from ciea_hf.retrieval.indexes import corpus_index

        return corpus_index(self, kind, device)

    def embeddings(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read the embeddings at some positions: (positions, D) float32."""
        rows = np.empty((len(positions), self.dimension), dtype=np.float32)
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        for number in np.unique(numbers):
            chosen = numbers == number
            rows[chosen] = self.segments[number].embeddings(positions[chosen] - self.starts[number])
        return rows

    def matrix(self) -> NDArray[np.float32]:
        """Return the embeddings of all documents by position: (positions, D) float32."""
        return self.embeddings(np.arange(len(self.live)))

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the embeddings in blocks of consecutive positions, each with its first position."""
        for start, segment in zip(self.starts, self.segments, strict=False):
            for first in range(0, len(segment), size):
                yield int(start) + first, segment.embeddings(slice(first, first + size))

    def names(self, positions: NDArray[np.int64]) -> list[str]:
        """Return the ids at some positions."""
        found: list[str | None] = [None] * len(positions)
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            ids = self.segments[number].ids(positions[places] - self.starts[number])
            for place, name in zip(places.tolist(), ids, strict=True):
                found[place] = name
        return [name for name in found if name is not None]

    def record(self, position: int) -> DocumentRecord:
        """Return the record of a document."""
        number = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.segments[number].record(position - int(self.starts[number]))

    def positions(self, ids: Sequence[str], live_only: bool = False) -> dict[str, int]:
        """Return the positions of documents by id; those that are not in the corpus are omitted.

        Args:
            ids: Document ids.
            live_only: Whether to omit documents without an embedding, too.
        """
        if not ids:
            return {}
        compute, arrow = (import_optional(name, extra="search") for name in ("pyarrow.compute", "pyarrow"))
        wanted = arrow.array(list(ids), arrow.large_string())
        there = self.live if live_only else self.kept
        found: dict[str, int] = {}
        for start, segment in zip(self.starts, self.segments, strict=False):
            column = segment.table["id"]
            rows = np.flatnonzero(compute.is_in(column, value_set=wanted).to_numpy())
            rows = rows[there[start + rows]]
            found |= dict(zip(segment.ids(rows), (start + rows).tolist(), strict=True))
        return found

    def allowed(self, filter: Filter | None) -> NDArray[np.bool_] | None:  # noqa: A002
        """Return which positions a search may find, (positions,) bool; `None` if all.

        Raises:
            ValueError: If the filter is invalid, or names an unknown field.
        """
        condition = parse_filter(filter)
        if condition is None:
            return None if self.live.all() else self.live
        key = json.dumps(filter, sort_keys=True, default=str)
        if key not in self._filters:
            check_fields(condition, self.fields)
            found = [matches(condition, segment.table) for segment in self.segments]
            self._filters[key] = np.concatenate([np.ones(0, dtype=bool), *found]) & self.live
            while len(self._filters) > _CACHED_FILTERS:
                self._filters.popitem(last=False)
        self._filters.move_to_end(key)
        return self._filters[key]

    def add(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents.

        Args:
            embeddings: (documents, D).
            records: Records of the documents.

        Raises:
            ValueError: If an id repeats or is in the corpus, or the shapes do not fit.
        """
        check_new_ids(records, list(self.positions([record.id for record in records])))
        self._append(embeddings, records)

    def upsert(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        """Add documents, replacing those with the same ids; raises the errors of [`add`]."""
        replaced = self.positions(check_new_ids(records))
        self._append(embeddings, records)
        self._delete(np.array(list(replaced.values()), dtype=np.int64))

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents.

        Raises:
            ValueError: If an id is not in the corpus.
        """
        positions = self.positions(list(ids))
        unknown = next((name for name in ids if name not in positions), None)
        if unknown is not None:
            raise ValueError(f"document {unknown!r} is not in the index")
        self._delete(np.array(list(positions.values()), dtype=np.int64))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the corpus as an index folder; shards that are already there are kept.

        Raises:
            ValueError: If the folder is an index of another model.
        """
        from ciea_hf.retrieval.folder import save_corpus

        save_corpus(self, folder)

    def _append(self, embeddings: Matrix, records: Sequence[DocumentRecord]) -> None:
        rows = as_matrix(embeddings, name="embeddings")
        rows = truncate(rows, self.settings.get("truncate_dim"), bool(self.settings.get("normalized", True)))
        if self.dimension and rows.shape[1] != self.dimension:
            raise ValueError(f"`embeddings` must have width {self.dimension} for this index; got {rows.shape[1]}")
        segment = make_segment(rows, records, self.settings["precision"])
        self.segments.append(segment)
        self.shard_names.append(None)
        self.live = np.concatenate([self.live, _live(segment)])
        self.kept = np.concatenate([self.kept, np.ones(len(segment), dtype=bool)])
        self.starts = np.append(self.starts, self.starts[-1] + len(segment))
        self._changed()

    def _delete(self, positions: NDArray[np.int64]) -> None:
        self.live[positions] = False
        self.kept[positions] = False
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._filters.clear()


def _live(segment: Segment) -> NDArray[np.bool_]:
    live = np.ones(len(segment), dtype=bool)
    live[list(segment.missing)] = False
    return live
