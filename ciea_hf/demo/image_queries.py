"""Measures with images as queries, for the table of the demonstration."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.retrieval.building import encode_corpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import EncodingOptions, encode_documents, encode_queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel

GENERIC_TEXT = "a picture"


class _ImageQueries:
    """Embeds the images of documents as queries."""

    def __init__(self, model: CIEAModel) -> None:
        self.encode_query = self.encode_document = model.encode_query
        self.preprocess_image = model.preprocess_image


def image_query_measures(model: CIEAModel, dataset: RetrievalDataset, batch_size: int = 64) -> dict[str, float]:
    """Measure how well images, as queries, find their own documents.

    Args:
        model: CIEA model.
        dataset: Data set whose corpus is searched.
        batch_size: Number of inputs per forward pass.

    Returns:
        `"own image"`: mean reciprocal rank of the own document for an image alone; `"image + text"`: the same for an
        image with the text "a picture"; `"same caption"`: share of text queries for which a relevant image ranks above
        all other images with the same caption.
    """
    options = EncodingOptions(batch_size=batch_size)
    documents = encode_corpus(model, dataset, options=options).matrix()
    rows = [row for row, document in enumerate(dataset.corpus_ids) if dataset.document_kinds[document] == "image"]
    scenes = dataset.select(rows)
    measures = {}
    for name, view in (
        ("own image", DocumentView(scenes, "image")),
        ("image + text", DocumentView(scenes, captions=[GENERIC_TEXT] * len(rows))),
    ):
        queries = encode_documents(_ImageQueries(model), view, 0, len(view), options).embeddings
        measures[name] = _own_document_mrr(queries @ documents.T, rows)
    measures["same caption"] = _told_apart(model, dataset, documents, batch_size)
    return measures


def _own_document_mrr(scores: NDArray[np.floating], rows: list[int]) -> float:
    own = scores[np.arange(len(rows)), rows]
    return float((1 / (1 + (scores > own[:, None]).sum(axis=1))).mean())


def _told_apart(model: CIEAModel, dataset: RetrievalDataset, documents: NDArray[np.floating], batch_size: int) -> float:
    """Return the share of image queries that rank a relevant image above all others with its caption."""
    kinds = dataset.query_kinds()
    queries = {query: text for query, text in dataset.judged_queries().items() if kinds.get(query) == "image"}
    positions = {document: position for position, document in enumerate(dataset.corpus_ids)}
    siblings: dict[str | None, list[int]] = defaultdict(list)
    captions = DocumentView(dataset, "caption").texts()
    for row, caption in enumerate(captions):
        siblings[caption].append(row)
    scores = encode_queries(model, list(queries.values()), batch_size) @ documents.T
    found = []
    for query, row in zip(queries, scores, strict=True):
        relevant = {positions[document] for document, score in dataset.qrels[query].items() if score > 0}
        best = max(relevant, key=lambda position: row[position])
        others = [row[position] for position in siblings[captions[best]] if position not in relevant]
        found.append(not others or row[best] > max(others))
    return float(np.mean(found))
