"""BM25 over texts and captions, and its fusion with a dense ranking by reciprocal ranks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.files import atomic_folder, file_checksum
from ciea_hf.retrieval.checksums import changed_files, read_checked, write_checked
from ciea_hf.retrieval.location import local_path
from ciea_hf.retrieval.results import SearchResult, best_of, check_top_k
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ciea_hf.retrieval.corpus import EncodedCorpus
    from ciea_hf.retrieval.filters import Filter
    from ciea_hf.retrieval.records import DocumentRecord

logger = logging.getLogger(__name__)

RANK_OFFSET = 60
"""Constant of reciprocal rank fusion (Cormack et al., 2009): a document scores the sum of 1 / (60 + rank)."""
_FOLDER = "bm25-"
_EMPTY = "bm25s.empty"
_CHECKSUMS = "checksums.json"


class KeywordIndex:
    """BM25 (Lucene's variant) over the texts and captions of a corpus.

    Words have two or more letters; English stop words are omitted.

    Args:
        corpus: Corpus, whose later changes are not seen.
        folder: Index folder, next to whose shards the BM25 index is kept; for a URL, in the cache. In memory if `None`.

    Raises:
        ImportError: If bm25s is not installed.
    """

    def __init__(self, corpus: EncodedCorpus, folder: str | os.PathLike[str] | None = None) -> None:
        self.corpus = corpus
        self._library = import_optional("bm25s", extra="hybrid")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs at DEBUG by default
        self._version = corpus.version
        path = None if folder is None else local_path(folder) / f"{_FOLDER}{corpus.state}"
        self._index: Any = None
        if path is not None and path.is_dir():
            if _is_sound(path):
                if not (path / _EMPTY).exists():
                    self._index = self._library.BM25.load(path, mmap=True, load_vocab=True)
                return
            logger.warning("%s differs from its checksums and is built again", path)
        self._build()
        if path is not None:
            try:
                self._save(path)
            except OSError as error:  # such as a folder that this user may only read
                logger.warning("the BM25 index is not kept: %s", error)

    def search(
        self,
        queries: Sequence[str],
        top_k: int,
        filter: Filter | None = None,  # noqa: A002
    ) -> SearchResult:
        """Find the documents with the highest BM25 scores; documents without a common word are not found.

        Args:
            queries: Texts; an empty one finds nothing.
            top_k: Number of documents per query, at least 1.
            filter: Conditions on the documents.

        Raises:
            ValueError: If `top_k` is below 1, the filter is invalid, or the corpus has changed.
        """
        check_top_k(top_k)
        if self.corpus.version != self._version:
            raise ValueError("the corpus has changed since its BM25 index was made: create a new `KeywordIndex`")
        allowed = self.corpus.allowed(filter)
        found = [self._search(query, top_k, allowed) for query in queries]
        places = [row[0] for row in found]
        return SearchResult(
            [row[1] for row in found],
            [row[2] for row in found],
            lambda: [[self.corpus.record(position) for position in row] for row in places],
        )

    def _search(
        self, query: str, top_k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[list[int], list[str], list[float]]:
        words = [word for word in self._words([query])[0] if self._index is not None and word in self._index.vocab_dict]
        if not words:
            return [], [], []
        scores = np.array(self._index.get_scores(words), dtype=np.float32)
        if allowed is not None:
            scores[~allowed] = 0
        rows = np.flatnonzero(scores > 0)
        if len(rows) > top_k:
            cutoff = np.partition(scores[rows], len(rows) - top_k)[len(rows) - top_k]
            rows = rows[scores[rows] >= cutoff]
        if not len(rows):
            return [], [], []
        order, ids, values = best_of(scores[rows], self.corpus.names(rows), top_k)
        return rows[order].tolist(), ids, values

    def _build(self) -> None:
        texts = [text or "" for segment in self.corpus.segments for text in segment.column("text")]
        live = self.corpus.live.tolist()
        words = self._words([text if there else "" for text, there in zip(texts, live, strict=True)])
        if any(words):
            self._index = self._library.BM25()
            self._index.index(words, show_progress=False)

    def _save(self, path: Path) -> None:
        with atomic_folder(path) as temporary:
            if self._index is None:
                (temporary / _EMPTY).touch()
            else:
                self._index.save(temporary)
            write_checked(temporary / _CHECKSUMS, {file.name: file_checksum(file) for file in temporary.iterdir()})
        for other in path.parent.glob(f"{_FOLDER}*"):
            if other != path:
                _remove(other)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        words: list[list[str]] = self._library.tokenize(list(texts), return_ids=False, show_progress=False)
        return words


def fuse(results: Sequence[SearchResult], top_k: int) -> SearchResult:
    """Fuse rankings by reciprocal ranks: each document scores the sum of 1 / (60 + rank) over the rankings.

    Args:
        results: Results of the same queries.
        top_k: Number of documents per query.

    Returns:
        Ids and fused scores, best first.
    """
    ids: list[list[str]] = []
    scores: list[list[float]] = []
    for rankings in zip(*(result.ids for result in results), strict=True):
        fused: dict[str, float] = {}
        for ranking in rankings:
            for rank, name in enumerate(ranking, start=1):
                fused[name] = fused.get(name, 0.0) + 1 / (RANK_OFFSET + rank)
        order = sorted(fused, key=lambda name: (fused[name], name), reverse=True)[:top_k]
        ids.append(order)
        scores.append([fused[name] for name in order])

    def records() -> list[list[DocumentRecord]]:
        read = [result.records() for result in results]
        found = []
        for number, names in enumerate(ids):
            known = {record.id: record for records in read for record in records[number]}
            found.append([known[name] for name in names])
        return found

    return SearchResult(ids, scores, records)


def _is_sound(folder: Path) -> bool:
    """Return whether the files of a kept index are those that were written."""
    try:
        return not changed_files(folder, read_checked(folder / _CHECKSUMS))
    except (OSError, ValueError):
        return False


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
