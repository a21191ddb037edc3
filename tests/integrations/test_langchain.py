"""LangChain: documents of equal caption and different images rank by the image."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from ciea_hf.integrations.langchain import CIEAEmbeddings, CIEARetriever
from ciea_hf.modeling import load_image
from ciea_hf.retrieval import Retriever
from tests.support.helpers import tiny_model, toy_image
from tests.support.toy_retrieval import ToyEncoder, coloured_image, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


def documents(folder: Path) -> list[Document]:
    """Two cups of different colours, with images in several forms, and a text."""
    coloured_image("red").save(folder / "red.png")
    buffer = BytesIO()
    coloured_image("green").save(buffer, format="PNG")
    return [
        Document("a cup", id="red", metadata={"image": str(folder / "red.png"), "shop": 1}),
        Document("a cup", id="green", metadata={"image": buffer.getvalue()}),
        Document("tea is a drink", id="tea"),
    ]


@pytest.mark.parametrize("colour", ["red", "green"])
def test_equal_captions_rank_by_the_image(tmp_path: Path, colour: str) -> None:
    retriever = CIEARetriever.from_documents(documents(tmp_path), ToyEncoder(), top_k=2)
    found = retriever.invoke(f"{colour} cup")
    assert found[0].id == colour
    assert found[0].page_content == "a cup"
    assert found[0].metadata["score"] > found[1].metadata["score"] + 0.1


def test_filters_use_the_metadata(tmp_path: Path) -> None:
    everything = CIEARetriever.from_documents(documents(tmp_path), ToyEncoder())
    assert {document.id for document in everything.invoke("tea")} == {"red", "green", "tea"}
    one = CIEARetriever.from_documents(documents(tmp_path), ToyEncoder(), filter={"shop": {"$gte": 1}})
    found = one.invoke("tea")
    assert [(document.id, document.metadata["shop"]) for document in found] == [("red", 1)]


def test_vectors_for_another_store_contain_the_image(tmp_path: Path) -> None:
    embeddings = CIEAEmbeddings(ToyEncoder())
    red, green, tea = np.array(embeddings.embed(documents(tmp_path)))
    for query, best in (("red cup", red), ("green cup", green), ("tea drink", tea)):
        row = np.array(embeddings.embed_query(query))
        assert max((red, green, tea), key=lambda vector: float(row @ vector)) is best
    uri = "data:image/png;base64," + base64.b64encode(documents(tmp_path)[1].metadata["image"]).decode()
    assert np.allclose(embeddings.embed([Document("a cup", metadata={"image": uri})])[0], green)


def test_texts_in_a_vector_store_of_langchain() -> None:
    store = InMemoryVectorStore.from_texts(["tea is a drink", "the sea is wide"], CIEAEmbeddings(ToyEncoder()))
    assert store.similarity_search("tea drink", k=1)[0].page_content == "tea is a drink"


async def _ainvoke(retriever: CIEARetriever, query: str) -> list[Document]:
    return await retriever.ainvoke(query)


def test_over_an_index() -> None:
    import asyncio

    retriever = CIEARetriever(retriever=Retriever.from_dataset(ToyEncoder(), toy_dataset()), top_k=1)
    found = asyncio.run(_ainvoke(retriever, "green cup"))
    assert [(document.id, document.page_content, document.metadata["kind"]) for document in found] == [
        ("img-green", "a cup", "image")
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document(" ", id="d"), "document 'd': needs a text or an image"),
        (Document("a", id="d", metadata={"image": b"no image"}), "document 'd'.*cannot be decoded"),
        (Document("a", id="d", metadata={"image": "https://127.0.0.1/x.png"}), "document 'd'.*URL"),
    ],
)
def test_invalid_documents_are_named(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIEAEmbeddings(ToyEncoder()).embed([Document("a red cat"), document])
    with pytest.raises(FileNotFoundError, match=r"document '0'.*gone\.png"):
        CIEAEmbeddings(ToyEncoder()).embed([Document("a", metadata={"image": "/gone.png"})])
    with pytest.raises(ValueError, match="must not be empty"):
        CIEARetriever.from_documents([], ToyEncoder())


def test_values_of_other_types_are_named() -> None:
    embeddings = CIEAEmbeddings(ToyEncoder())
    with pytest.raises(
        TypeError, match="document '0': an image must be a PIL image, a path, bytes or an array; got int"
    ):
        embeddings.embed([Document("a", metadata={"image": 5})])
    query: Any = 5
    with pytest.raises(TypeError, match="a text must be a str; got int"):
        embeddings.embed_query(query)


def test_photos_become_pixel_values_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    events: list[str] = []

    def noted(name: str, function: Any) -> Any:
        def called(*args: Any) -> Any:
            events.append(name)
            return function(*args)

        return called

    monkeypatch.setattr("ciea_hf.integrations.common.load_image", noted("decode", load_image))
    monkeypatch.setattr(model, "preprocess_image", noted("resize", model.preprocess_image))
    documents = []
    for number in range(3):
        toy_image(number).save(tmp_path / f"{number}.png")
        documents.append(Document(f"cat {number}", metadata={"image": str(tmp_path / f"{number}.png")}))
    found = CIEAEmbeddings(model).embed(documents)
    assert events == ["decode", "resize"] * 3
    inputs = [{"text": f"cat {number}", "image": tmp_path / f"{number}.png"} for number in range(3)]
    np.testing.assert_allclose(found, model.encode_document(inputs, normalize_embeddings=True), atol=1e-6)
