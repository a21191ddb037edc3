"""Search by 1-bit codes: a scan of all codes in memory, and scores of the candidates from the stored embeddings."""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ciea_hf.retrieval.indexes.base import CorpusIndex
from ciea_hf.retrieval.precision import sign_codes
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ciea_hf.retrieval.corpus import EncodedCorpus

_CANDIDATES = 500
_DIMENSIONS = 256  # codes with less bits need more candidates for the same recall
_FAISS_FROM = 200_000  # documents, below which starting its threads takes longer than the scan
_BLOCK = 16_384  # documents per pass, whose distances stay in the processor's cache
_WORD = 8  # bytes


class ScanIndex(CorpusIndex):
    """Search by the Hamming distance of sign codes; candidates are rescored from what is stored.

    The codes take D / 8 bytes per document. A scan reads them all, so no document is lost to a graph or a cell, and a
    filter costs nothing: codes of documents that it excludes are never candidates.

    Args:
        corpus: Embeddings and records.
        device: Not used; the codes are scanned by the CPU.
        candidates: Number of documents rescored per query, at least 20 per hit; if `None`, 500, and more for
            embeddings with less than 256 dimensions, whose codes are short.
        engine: `"numpy"`; `"faiss"` for searches without a filter; or `"auto"`: FAISS, where it is installed, beyond
            200,000 documents.

    Raises:
        ValueError: If `engine` is unknown.
    """

    def __init__(
        self,
        corpus: EncodedCorpus,
        device: str | torch.device | None = None,
        candidates: int | None = None,
        engine: str = "auto",
    ) -> None:
        super().__init__(corpus, device)
        if engine not in ("auto", "numpy", "faiss"):
            raise ValueError(f"`engine` must be auto, numpy or faiss; got {engine!r}")
        self.candidates = candidates
        self._engine = engine
        self._version = corpus.version
        self._words: NDArray[np.uint64] | None = None
        self._binary: Any = None

    def _candidates(
        self, queries: NDArray[np.float32], kept: int, allowed: NDArray[np.bool_] | None
    ) -> Iterator[NDArray[np.int64]]:
        self._refresh()
        chosen = self.candidates or max(_CANDIDATES, _CANDIDATES * _DIMENSIONS // self.dimension)
        count = max(chosen, 20 * kept)
        codes = sign_codes(queries)
        if allowed is None and self._uses_faiss():
            distances, found = self._in_faiss().search(codes, min(count, len(self.corpus.live)))
            for code, steps, rows in zip(codes, distances, found, strict=True):
                is_cut = steps[kept - 1] == steps[-1]  # among documents that tie, which FAISS does not order
                yield self._in_numpy(code, count, None) if is_cut else rows.astype(np.int64)
            return
        rows = None if allowed is None else np.flatnonzero(allowed)
        for code in codes:
            yield self._in_numpy(code, count, rows)

    def _uses_faiss(self) -> bool:
        if self._engine != "auto":
            return self._engine == "faiss"
        return len(self.corpus.live) > _FAISS_FROM and importlib.util.find_spec("faiss") is not None

    def _in_numpy(self, code: NDArray[np.uint8], count: int, rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Scan all codes, or those of some rows."""
        if self._words is None:
            self._words = np.concatenate([_as_words(part) for part in self._parts()], axis=1)
        query = _as_words(code[None])[:, 0]
        if rows is None:
            return smallest(hamming_distances(self._words, query), count)
        if 2 * len(rows) < self._words.shape[1]:
            return rows[smallest(hamming_distances(np.take(self._words, rows, axis=1), query), count)]
        return rows[smallest(hamming_distances(self._words, query)[rows], count)]

    def _in_faiss(self) -> Any:
        if self._binary is None:
            faiss = import_optional("faiss", extra="faiss")
            self._binary = faiss.IndexBinaryFlat(8 * self._parts()[0].shape[1])
            for part in self._parts():
                self._binary.add(np.ascontiguousarray(part))
        return self._binary

    def _parts(self) -> list[NDArray[np.uint8]]:
        return [segment.codes for segment in self.corpus.segments if len(segment)]

    def _refresh(self) -> None:
        """Forget the codes, if the corpus has changed."""
        if self._version != self.corpus.version:
            self._words = self._binary = None
            self._version = self.corpus.version


def hamming_distances(words: NDArray[np.uint64], query: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Count differing bits: codes (words, documents) and one code (words,) give (documents,).

    The codes are stored by word, so that every step works on consecutive memory; threads share the documents.
    """
    distances = np.zeros(words.shape[1], dtype=np.uint16)

    def scan(start: int) -> None:
        total = distances[start : start + _BLOCK]
        for row, word in zip(words, query, strict=True):
            total += np.bitwise_count(row[start : start + _BLOCK] ^ word)

    starts = range(0, len(distances), _BLOCK)
    if len(starts) < 4:
        for start in starts:
            scan(start)
    else:
        list(_pool().map(scan, starts))
    return distances


def smallest(distances: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """Return the places of the smallest distances, at least `count`: all that tie with the last one are included."""
    if count >= len(distances):
        return np.arange(len(distances))
    frequencies = np.bincount(distances)
    limit = int(np.searchsorted(np.cumsum(frequencies), count))
    return np.flatnonzero(distances <= limit)


_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    key = os.getpid(), torch.get_num_threads()  # threads do not survive a fork
    if key not in _POOLS:
        _POOLS[key] = ThreadPoolExecutor(key[1], thread_name_prefix="scan")
    return _POOLS[key]


def _as_words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return codes (documents, bytes) by 64-bit word: (words, documents)."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % _WORD)))
    return np.ascontiguousarray(padded.view(np.uint64).T)
