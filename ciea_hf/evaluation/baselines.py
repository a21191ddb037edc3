"""BM25 over texts and captions: a baseline without images and without training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ciea_hf.retrieval.records import document_records
from ciea_hf.retrieval.ties import id_ranks, top_k_with_ties
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.data import RetrievalDataset

_SCORES_AT_ONCE = 16_000_000


def bm25_run(
    dataset: RetrievalDataset,
    top_k: int = 100,
    captions: Sequence[str | None] | None = None,
    k1: float = 1.5,
    b: float = 0.75,
) -> dict[str, dict[str, float]]:
    """Rank every judged query with BM25 (Lucene's variant; words of two or more letters, without English stop words).

    Args:
        dataset: Data set whose texts and captions are searched.
        top_k: Maximum number of documents per query; documents without a common word are excluded.
        captions: Texts that replace the corpus's own, by position; the corpus's own if `None`.
        k1: Saturation of the term frequency.
        b: Weight of the document length.

    Returns:
        Query id to document id to score. Equal scores are ordered by document id, descending.

    Raises:
        ImportError: If bm25s is not installed.
    """
    bm25s = import_optional("bm25s", extra="eval")
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs at DEBUG by default
    records = document_records(dataset)
    texts = [record.text or "" for record in records] if captions is None else [text or "" for text in captions]
    queries = dataset.judged_queries()
    words_of = _tokens(bm25s, texts)
    if not any(words_of):  # for example, images without captions
        return {name: {} for name in queries}
    index = bm25s.BM25(k1=k1, b=b)
    index.index(words_of, show_progress=False)
    ids = [record.id for record in records]
    ranks = id_ranks(ids)
    run: dict[str, dict[str, float]] = {}
    block = max(1, _SCORES_AT_ONCE // max(1, len(ids)))
    names = list(queries)
    for start in range(0, len(names), block):
        chosen = names[start : start + block]
        words = _tokens(bm25s, [queries[name] for name in chosen])
        scores = torch.from_numpy(np.stack([_scores(index, row, len(ids)) for row in words]))
        for name, values, positions in zip(chosen, *top_k_with_ties(scores, ranks, top_k), strict=True):
            found = zip(values.tolist(), positions.tolist(), strict=True)
            run[name] = {ids[position]: score for score, position in found if score > 0}
    return run


def _tokens(bm25s: Any, texts: Sequence[str]) -> list[list[str]]:
    tokens: list[list[str]] = bm25s.tokenize(list(texts), return_ids=False, show_progress=False)
    return tokens


def _scores(index: Any, words: Sequence[str], documents: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    known = [word for word in words if word in index.vocab_dict]
    if not known:
        return np.zeros(documents, dtype=np.float32)
    scores: np.ndarray[Any, np.dtype[np.float32]] = index.get_scores(known)
    return scores
