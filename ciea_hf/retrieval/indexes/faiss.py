"""Approximate search with FAISS: HNSW, or IVF with product quantisation; candidates are rescored."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.files import atomic_write, file_checksum
from ciea_hf.retrieval.checksums import changed_files, read_checked, write_checked
from ciea_hf.retrieval.folder import load_corpus
from ciea_hf.retrieval.indexes.base import CorpusIndex
from ciea_hf.retrieval.location import local_path
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from ciea_hf.retrieval.corpus import EncodedCorpus

logger = logging.getLogger(__name__)

METHODS = ("hnsw", "ivfpq")
_ROWS_PER_CELL = 39  # the least that FAISS wants for training
_NEIGHBOURS = 32


class FaissIndex(CorpusIndex):
    """Approximate search with FAISS.

    Where a filter leaves few documents, they are all scored in full precision, because graphs and cells lose recall
    under narrow filters. Documents that are added later are added to the FAISS index; deleted ones are never found.

    Args:
        corpus: Embeddings and records.
        device: Not used; FAISS computes on the CPU.
        method: `"hnsw"`, a graph, or `"ivfpq"`, cells of compressed embeddings.
        candidates: Number of documents rescored per query, at least 20 per hit.
        effort: Size of the graph's search list, or number of cells visited.

    Raises:
        ImportError: If FAISS is not installed.
        ValueError: If `method` is unknown.
    """

    few = 20_000

    def __init__(
        self,
        corpus: EncodedCorpus,
        device: str | torch.device | None = None,
        method: str = "hnsw",
        candidates: int = 200,
        effort: int = 256,
    ) -> None:
        super().__init__(corpus, device)
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}")
        self.method = method
        self.candidates = candidates
        self.effort = effort
        self._faiss = import_optional("faiss", extra="faiss")
        self._index: Any = None

    def _candidates(
        self, queries: NDArray[np.float32], kept: int, allowed: NDArray[np.bool_] | None
    ) -> Iterator[NDArray[np.int64]]:
        self._refresh()
        count = min(max(self.candidates, 20 * kept), len(self.corpus.live))
        _, found = self._index.search(queries, count, params=self._parameters(count, allowed))
        for query, row in zip(queries, found, strict=True):
            rows = row[row >= 0].astype(np.int64)
            if len(rows) >= kept:
                yield rows
            else:  # the graph or the cells have not reached enough documents that the filter allows
                yield next(self._all(query[None], allowed))

    def _parameters(self, count: int, allowed: NDArray[np.bool_] | None) -> Any:
        selector = None
        if allowed is not None:
            self._bits = np.packbits(allowed, bitorder="little")  # must outlive the search
            selector = self._faiss.IDSelectorBitmap(self._bits)
        if self.method == "hnsw":
            return self._faiss.SearchParametersHNSW(efSearch=max(self.effort, count), sel=selector)
        return self._faiss.SearchParametersIVF(nprobe=min(self.effort, self._index.nlist), sel=selector)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write an index folder, with the FAISS index beside the shards."""
        super().save(folder)
        if len(self.corpus.live):
            self._refresh()
            path = local_path(folder) / f"faiss-{self.method}.index"
            with atomic_write(path) as temporary:
                self._faiss.write_index(self._index, str(temporary))
            content = {"method": self.method, "state": load_corpus(folder).state, "sha256": file_checksum(path)}
            write_checked(path.with_suffix(".json"), content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> FaissIndex:
        """Open an index folder; a FAISS index of other documents is built again at the first search."""
        corpus = load_corpus(folder)
        for method in METHODS:
            path = local_path(folder) / f"faiss-{method}.index"
            described = path.with_suffix(".json")
            if path.is_file() and described.is_file():
                index = cls(corpus, method=method)
                content = read_checked(described)
                if content["state"] != corpus.state:
                    logger.warning("%s belongs to other documents and is built again", path)
                elif changed_files(path.parent, {path.name: content["sha256"]}):
                    logger.warning("%s differs from its checksum and is built again", path)
                else:
                    index._index = index._faiss.read_index(str(path))
                return index
        return cls(corpus)

    def _refresh(self) -> None:
        """Build the FAISS index, or add the documents that are not in it."""
        if self._index is None:
            self._index = self._built()
        for start, rows in self.corpus.blocks(65_536):
            if start + len(rows) > self._index.ntotal:
                self._index.add(np.ascontiguousarray(rows[max(0, self._index.ntotal - start) :]))

    def _built(self) -> Any:
        width, faiss = self.dimension, self._faiss
        if self.method == "hnsw":
            return faiss.IndexHNSWFlat(width, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        count = len(self.corpus.live)
        cells = max(1, min(int(4 * np.sqrt(count)), count // _ROWS_PER_CELL))
        parts = next(parts for parts in (width // 8, width // 4, width // 2, width) if parts and width % parts == 0)
        bits = 8 if count >= 256 * _ROWS_PER_CELL else 4
        description = f"IVF{cells},PQ{parts}x{bits}"
        index = faiss.index_factory(width, description, faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).choice(count, size=min(count, cells * 256), replace=False)
        index.train(self.corpus.embeddings(np.sort(sample)))
        return index
