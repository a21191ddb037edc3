"""Chunks of documents, which threads read ahead of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.retrieval import DocumentView, EncodingOptions
from ciea_hf.retrieval.encoding import MAX_WORKERS, encode_documents
from ciea_hf.utils import usable_cores
from tests.support.toy_retrieval import ToyEncoder


@pytest.mark.parametrize("workers", [None, 0, 3])
def test_chunks_are_a_few_batches_in_the_order_of_the_corpus(workers: int | None) -> None:
    class Recording(ToyEncoder):
        def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
            calls.append(list(inputs))
            return super().encode_document(inputs, **kwargs)

    calls: list[list[str]] = []
    texts = [f"w{number}" for number in range(31)]
    corpus = corpus_from_columns(texts, texts, [None] * len(texts))
    dataset = RetrievalDataset(corpus, queries_from_columns([], []), {}, name="texts", split="texts")
    options = EncodingOptions(batch_size=3, num_workers=workers)
    found = encode_documents(Recording(), DocumentView(dataset), 2, 29, options)
    assert calls == [texts[2:14], texts[14:26], texts[26:29]]
    reference = ToyEncoder().encode_document(
        texts[2:29], batch_size=1, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
    )
    np.testing.assert_array_equal(found.embeddings, reference.numpy())


def test_threads_by_default_follow_the_cores() -> None:
    assert EncodingOptions().decoding_threads == min(usable_cores(), MAX_WORKERS) >= 1
    assert EncodingOptions(num_workers=0).decoding_threads == 0
