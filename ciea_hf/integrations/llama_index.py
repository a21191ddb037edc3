"""LlamaIndex: embeddings of text nodes, image nodes and captioned images, and a retriever.

An image node's text is the caption. The image comes from `image` (base64), `image_path` or the image resource of a
node; `image_url` is not fetched.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ciea_hf.integrations import missing_framework
from ciea_hf.integrations.common import Entry, embed_entries, embed_query, resolve_model, retriever_over

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, Node, NodeWithScore, QueryBundle, TextNode
except ModuleNotFoundError as error:
    raise missing_framework(error, "llama-index") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.retrieval import Encoder, Hit, Retriever
    from ciea_hf.retrieval.filters import Filter


class CIEAEmbedding(BaseEmbedding):
    """Embeds queries and nodes. As a transformation it sets the embedding of each node from its text and image.

    An index keeps the embeddings that nodes already have. Pass it nodes that this transformation has embedded, and
    the embedding itself for the queries.

    Args:
        model: Model, or the folder or Hub id to load it from.
        embed_batch_size: Number of nodes per forward pass.

    Examples:
        >>> embedding = CIEAEmbedding("runs/ciea")  # doctest: +SKIP
        >>> nodes = embedding([ImageNode(text="a cup", image_path="cup.png")])  # doctest: +SKIP
        >>> index = VectorStoreIndex(nodes, embed_model=embedding)  # doctest: +SKIP
    """

    _model: Any = PrivateAttr()

    def __init__(self, model: Encoder | str, embed_batch_size: int = 32, **kwargs: Any) -> None:
        name = model if isinstance(model, str) else type(model).__name__
        super().__init__(model_name=name, embed_batch_size=embed_batch_size, **kwargs)
        self._model = resolve_model(model)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:  # noqa: ARG002
        """Set the embedding of each node.

        Raises:
            ValueError: If a node is empty, its image is only a URL, or its image cannot be decoded.
            FileNotFoundError: If the file of an image does not exist.
        """
        entries = [_entry(node) for node in nodes]
        rows = embed_entries(self._model, entries, self.embed_batch_size).tolist()
        for node, row in zip(nodes, rows, strict=True):
            node.embedding = row
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of each node."""
        return self(nodes, **kwargs)

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed_query(self._model, query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        entries = [Entry(str(position), text, None) for position, text in enumerate(texts)]
        rows: list[list[float]] = embed_entries(self._model, entries, self.embed_batch_size).tolist()
        return rows


class CIEARetriever(BaseRetriever):
    """Retrieves nodes, each found by text and image together. A query may have an image (`QueryBundle.image_path`).

    Args:
        retriever: Retriever over an index of `ciea index`.
        top_k: Number of nodes per query.
        nodes: Nodes by document id; without one, a text node is made of the hit.
        filter: Conditions on the metadata, such as `{"year": {"$gte": 2020}}`.

    Examples:
        >>> nodes = [ImageNode(text="a cup", image_path="cup.png")]  # doctest: +SKIP
        >>> CIEARetriever.from_nodes(nodes, "runs/ciea", top_k=3).retrieve("a red cup")  # doctest: +SKIP
    """

    def __init__(
        self,
        retriever: Retriever,
        top_k: int = 10,
        nodes: dict[str, BaseNode] | None = None,
        filter: Filter | None = None,  # noqa: A002 (the retriever's name of it)
    ) -> None:
        super().__init__()
        self._retriever = retriever
        self._top_k = top_k
        self._nodes = nodes or {}
        self._filter = filter

    @classmethod
    def from_nodes(
        cls,
        nodes: Sequence[BaseNode],
        model: Encoder | str,
        top_k: int = 10,
        batch_size: int = 32,
        filter: Filter | None = None,  # noqa: A002
    ) -> CIEARetriever:
        """Embed nodes and search them exactly, in memory.

        Args:
            nodes: The nodes.
            model: Model, or the folder or Hub id to load it from.
            top_k: Number of nodes per query.
            batch_size: Number of nodes per forward pass.
            filter: Conditions on the metadata.

        Raises:
            ValueError: If there are no nodes, or as [`CIEAEmbedding`].
            FileNotFoundError: If the file of an image does not exist.
        """
        retriever = retriever_over(resolve_model(model), [_entry(node) for node in nodes], batch_size)
        return cls(retriever, top_k, {node.node_id: node for node in nodes}, filter)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        import numpy as np

        row = query_bundle.embedding
        if row is None:
            row = embed_query(self._retriever.model, query_bundle.query_str, query_bundle.image_path)
        hits = self._retriever.search_embeddings(np.array([row], dtype=np.float32), self._top_k, self._filter)[0]
        return [NodeWithScore(node=self._node(hit), score=hit.score) for hit in hits]

    def _node(self, hit: Hit) -> BaseNode:
        known = self._nodes.get(hit.id)
        metadata = {**hit.metadata, "kind": hit.kind}
        return TextNode(id_=hit.id, text=hit.text or "", metadata=metadata) if known is None else known


def _entry(node: BaseNode) -> Entry:
    return Entry(node.node_id, *_content(node), node.metadata)


def _content(node: BaseNode) -> tuple[str | None, Any]:
    """Return the text and the image of a node."""
    if isinstance(node, ImageNode):
        return node.text or None, _image(node.node_id, node.image, node.image_path, node.image_url)
    if isinstance(node, Node) and node.image_resource is not None:
        resource = node.image_resource
        text = node.text_resource.text if node.text_resource else None
        return text, _image(node.node_id, resource.data, resource.path, resource.url)
    return node.get_content(metadata_mode=MetadataMode.EMBED) or None, None


def _image(name: str, encoded: Any, path: Any, url: Any) -> Any:
    """Return the bytes or the path of an image; `None` if there is none."""
    if encoded:
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise ValueError(f"document {name!r}: the image is not valid base64: {error}") from error
    if path is None and url is not None:
        raise ValueError(f"document {name!r}: the image is a URL, and URLs are not fetched; download it first")
    return path
