"""LlamaIndex: nodes of equal caption and different images rank by the image."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import BaseNode, ImageNode, MediaResource, Node, QueryBundle, TextNode

from ciea_hf.integrations.llama_index import CIEAEmbedding, CIEARetriever
from ciea_hf.retrieval import Retriever
from tests.support.toy_retrieval import ToyEncoder, coloured_image, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


def nodes(folder: Path) -> list[BaseNode]:
    """Three cups of different colours, with images in several forms, and a text."""
    for colour in ("red", "green", "blue"):
        coloured_image(colour).save(folder / f"{colour}.png")
    encoded = base64.b64encode((folder / "green.png").read_bytes()).decode()
    resource = MediaResource(path=folder / "blue.png", mimetype="image/png")
    return [
        ImageNode(id_="red", text="a cup", image_path=str(folder / "red.png")),
        ImageNode(id_="green", text="a cup", image=encoded),
        Node(id_="blue", text_resource=MediaResource(text="a cup"), image_resource=resource),
        TextNode(id_="tea", text="tea is a drink"),
    ]


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_equal_captions_rank_by_the_image(tmp_path: Path, colour: str) -> None:
    retriever = CIEARetriever.from_nodes(nodes(tmp_path), ToyEncoder(), top_k=2)
    best, second = retriever.retrieve(f"{colour} cup")
    assert best.node.node_id == colour
    assert (best.score or 0) > (second.score or 0) + 0.1
    by_image = retriever.retrieve(QueryBundle("", image_path=str(tmp_path / f"{colour}.png")))
    assert by_image[0].node.node_id == colour


def test_an_index_of_llama_index_keeps_the_embeddings(tmp_path: Path) -> None:
    embedding = CIEAEmbedding(ToyEncoder())
    index = VectorStoreIndex(list(embedding(nodes(tmp_path))), embed_model=embedding)
    for colour in ("red", "green", "blue"):
        assert index.as_retriever(similarity_top_k=1).retrieve(f"{colour} cup")[0].node.node_id == colour
    assert index.as_retriever(similarity_top_k=1).retrieve("tea drink")[0].node.node_id == "tea"


def test_an_image_without_caption(tmp_path: Path) -> None:
    coloured_image("red").save(tmp_path / "red.png")
    node = CIEAEmbedding(ToyEncoder())([ImageNode(image_path=str(tmp_path / "red.png"))])[0]
    assert node.embedding == pytest.approx(CIEAEmbedding(ToyEncoder()).get_query_embedding("red"))


def test_over_an_index() -> None:
    retriever = CIEARetriever(Retriever.from_dataset(ToyEncoder(), toy_dataset()), top_k=1)
    found = retriever.retrieve("green cup")[0]
    assert (found.node.node_id, found.node.get_content(), found.node.metadata["kind"]) == (
        "img-green",
        "a cup",
        "image",
    )


def test_invalid_nodes_are_named() -> None:
    embedding = CIEAEmbedding(ToyEncoder())
    for node, message in (
        (ImageNode(id_="n", text="a", image_url="https://127.0.0.1/x.png"), "document 'n'.*not fetched"),
        (ImageNode(id_="n", text="a", image="?"), "document 'n'.*base64"),
        (ImageNode(id_="n", text="a", image="AAAA"), "document 'n'.*cannot be decoded"),
        (TextNode(id_="n", text=""), "document 'n': needs a text or an image"),
    ):
        with pytest.raises(ValueError, match=message):
            embedding([node])
