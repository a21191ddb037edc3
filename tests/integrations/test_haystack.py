"""Haystack: documents of equal caption and different images rank by the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read at import

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.dataclasses import ByteStream
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ciea_hf.integrations.haystack import CIEADocumentEmbedder, CIEARetriever, CIEATextEmbedder
from ciea_hf.retrieval import Retriever
from tests.support.toy_retrieval import ToyEncoder, coloured_image, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


def documents(folder: Path) -> list[Document]:
    """Two cups of different colours, with images in both forms, and a text whose file is not an image."""
    for colour in ("red", "green"):
        coloured_image(colour).save(folder / f"{colour}.png")
    return [
        Document(id="red", content="a cup", meta={"file_path": str(folder / "red.png")}),
        Document(id="green", content="a cup", blob=ByteStream.from_file_path(folder / "green.png")),
        Document(id="tea", content="tea is a drink", meta={"file_path": "tea.txt"}),
    ]


@pytest.mark.parametrize("colour", ["red", "green"])
def test_equal_captions_rank_by_the_image(tmp_path: Path, colour: str) -> None:
    retriever = CIEARetriever.from_documents(documents(tmp_path), ToyEncoder())
    best, second = retriever.run(f"{colour} cup", top_k=2)["documents"]
    assert best.id == colour
    assert (best.score or 0) > (second.score or 0) + 0.1


def test_pipelines_with_a_document_store(tmp_path: Path) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    model = ToyEncoder()
    embedder = CIEADocumentEmbedder(model)
    store.write_documents(embedder.run(documents(tmp_path))["documents"])
    pipeline = Pipeline()
    pipeline.add_component("query", CIEATextEmbedder(model))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("query.embedding", "retriever.query_embedding")
    for colour in ("red", "green"):
        found = pipeline.run({"query": {"text": f"{colour} cup"}})["retriever"]["documents"]
        assert [document.id for document in found] == [colour]
    found = pipeline.run({"query": {"image": coloured_image("green")}})["retriever"]["documents"]
    assert [document.id for document in found] == ["green"]


def test_components_are_serialised_with_the_models_name(model: str) -> None:
    for component in (CIEADocumentEmbedder(model, batch_size=4), CIEATextEmbedder(model)):
        restored = type(component).from_dict(component.to_dict())
        assert restored.to_dict() == component.to_dict()
    assert len(CIEATextEmbedder(model).run("a red cat")["embedding"]) == 32
    with pytest.raises(ValueError, match="`model` must be a folder or Hub id"):
        CIEATextEmbedder(ToyEncoder()).to_dict()


def test_over_an_index() -> None:
    retriever = CIEARetriever(Retriever.from_dataset(ToyEncoder(), toy_dataset()), top_k=1)
    found = retriever.run("green cup")["documents"][0]
    assert (found.id, found.content, found.meta["kind"]) == ("img-green", "a cup", "image")


def test_invalid_documents_are_named() -> None:
    embedder = CIEADocumentEmbedder(ToyEncoder())
    for document, message in (
        (Document(id="d"), "document 'd': needs a text or an image"),
        (
            Document(id="d", content="a", blob=ByteStream(b"x", mime_type="image/png")),
            "document 'd'.*cannot be decoded",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            embedder.run([document])
    with pytest.raises(FileNotFoundError, match=r"document 'd'.*gone\.png"):
        embedder.run([Document(id="d", content="a", meta={"file_path": "/gone.png"})])
    with pytest.raises(ValueError, match="neither"):
        CIEATextEmbedder(ToyEncoder()).run()
