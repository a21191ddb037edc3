"""From inputs of a request to embeddings and hits."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ciea_hf.modeling.inputs_ciea import input_kind
from ciea_hf.retrieval.encoding import encode_inputs, normalizes
from ciea_hf.serve import inputs, searching
from ciea_hf.serve.batching import Batcher, QueueFullError, Work
from ciea_hf.serve.errors import InvalidInputError, RequestError, overloaded
from ciea_hf.serve.metrics import Metrics
from ciea_hf.serve.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ciea_hf.retrieval import Encoder, Retriever
    from ciea_hf.serve.inputs import OpenedImage, RawInput
    from ciea_hf.serve.options import ServeOptions

INLINE_CHARACTERS = 16_384  # texts up to this total are tokenised in the event loop, longer ones in a thread
SHORTEST = 5  # inputs of up to 2**5 tokens share batches
SEARCHES_PER_BATCH = 64


class BatchKey(NamedTuple):
    """What the inputs of a batch have in common.

    Attributes:
        role: `"query"`, `"document"`, or `None` for an embedding without a prompt.
        kind: `"text"`, `"image"` or `"image,text"`.
        size: Logarithm of the number of tokens, rounded up.
    """

    role: str | None
    kind: str
    size: int


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a request.

    Attributes:
        rows: (inputs, D) float32, normalised unless the model scores by dot product.
        tokens: Number of tokens of the texts.
        image_tokens: Number of tokens of the images.
        images: Number of images.
        pixels: Number of pixels of the images.
    """

    rows: NDArray[np.float32]
    tokens: int
    image_tokens: int
    images: int
    pixels: int


class Engine:
    """Embeds and searches for concurrent requests.

    Args:
        model: CIEA model or SentenceTransformer.
        options: Limits.
        retriever: Retriever over an index, for searches.
    """

    def __init__(self, model: Encoder, options: ServeOptions, retriever: Retriever | None = None) -> None:
        self.options = options
        self.retriever = retriever
        self.metrics = Metrics()
        self._model = model
        self.normalize = normalizes(model)
        self._counter = TokenCounter(model)
        self._encoders = {
            "query": model.encode_query,
            "document": model.encode_document,
            None: getattr(model, "encode", model.encode_document),
        }
        self.dimension = encode_inputs(model.encode_document, ["warm up"]).shape[1]
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="ciea-decoder")
        self._pending_pixels = 0
        self._embedder = Batcher(
            self._embed_batch, options.batch_size, options.max_batch_tokens, options.max_queue, self.metrics.on_batch
        )
        self._searcher = Batcher(self._search_batch, SEARCHES_PER_BATCH, SEARCHES_PER_BATCH, options.max_queue)
        self.metrics.watch_queue(lambda: self._embedder.waiting + self._searcher.waiting)

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._embedder.alive and self._searcher.alive

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._embedder.close()
        self._searcher.close()
        self._pool.shutdown()

    async def embed(self, items: Sequence[RawInput], role: str | None, truncate: bool = True) -> Embedded:
        """Embed the inputs of a request.

        Args:
            items: The inputs.
            role: `"query"`, `"document"`, or `None` for an embedding without a prompt.
            truncate: Whether texts that are too long are truncated; otherwise they are invalid.

        Returns:
            The embeddings.

        Raises:
            RequestError: If an input is invalid, the service is overloaded, or the model fails.
        """
        self._check_supported(items)
        counts = await self._count(items, truncate)
        opened = await self._open(items)
        pixels = sum(image.pixels for image in opened if image is not None)
        with self._reserved(pixels):
            images = await self._decode(opened)
            works = [self._work(role, *parts) for parts in zip(items, images, counts, strict=True)]
            results = await _submit(self._embedder, works)
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Exception):
                raise RequestError(500, f"{item.param}: the input cannot be embedded", item.param, item.position)
        self.metrics.on_inputs([input_kind(item.text, item.image) for item in items])
        number = sum(item.image is not None for item in items)
        image_tokens = number * self._counter.image_tokens
        return Embedded(np.stack(results), sum(counts), image_tokens, number, pixels)

    async def search(
        self, items: Sequence[RawInput], top_k: int, conditions: Mapping[str, Any] | None
    ) -> list[list[dict[str, Any]]]:
        """Search with the queries of a request.

        Args:
            items: The queries.
            top_k: Number of hits per query.
            conditions: Filter, or `None`.

        Returns:
            Hits of each query, best first.

        Raises:
            RequestError: If there is no index, the filter is invalid, or as [`embed`].
        """
        if self.retriever is None:
            raise RequestError(404, "the service has no index; start it with --index")
        embedded = await self.embed(items, "query")
        key = (top_k, json.dumps(conditions, sort_keys=True) if conditions else None)
        results = await _submit(self._searcher, [Work(key, 1, row) for row in embedded.rows])
        for result in results:
            if isinstance(result, TypeError | ValueError):
                raise RequestError(400, str(result), "filter" if conditions else None)
            if isinstance(result, Exception):
                raise RequestError(500, "the search failed")
        return results

    def _check_supported(self, items: Sequence[RawInput]) -> None:
        supports = getattr(self._model, "supports", None)
        if supports is None:
            return
        for item in items:
            kind = input_kind(item.text, item.image)
            if not supports(("image", "text") if kind == "image,text" else kind):
                raise InvalidInputError(
                    f"the model does not support inputs of kind {kind!r}", item.position, item.param
                )

    async def _count(self, items: Sequence[RawInput], truncate: bool) -> list[int]:
        """Count the tokens of each text, up to the model's maximum."""
        texts = [item.text for item in items]
        if sum(map(len, filter(None, texts))) <= INLINE_CHARACTERS:
            counts = self._counter.count(texts)
        else:
            counts = await self._in_pool(partial(self._counter.count, texts))
        limit = self._counter.max_tokens
        if limit is None:
            return counts
        for item, count in zip(items, counts, strict=True):
            if count > limit and not truncate:
                message = f"the text has {count} tokens; the model's maximum is {limit}"
                raise InvalidInputError(message, item.position, item.param)
        return [min(count, limit) for count in counts]

    async def _open(self, items: Sequence[RawInput]) -> list[OpenedImage | None]:
        def open_all() -> list[OpenedImage | None]:
            return [inputs.open_image(item, self.options) if item.image is not None else None for item in items]

        if all(item.image is None for item in items):
            return [None] * len(items)
        found: list[OpenedImage | None] = await self._in_pool(open_all)
        return found

    async def _decode(self, opened: Sequence[OpenedImage | None]) -> list[Image.Image | None]:
        """Decode images in several threads; one that is invalid fails the request."""
        tasks = [self._in_pool(partial(inputs.decode_image, image)) for image in opened if image is not None]
        decoded: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        error = next((result for result in decoded if isinstance(result, BaseException)), None)
        if error is not None:
            raise error
        remaining = iter(decoded)
        return [None if image is None else next(remaining) for image in opened]

    def _work(self, role: str | None, item: RawInput, image: Image.Image | None, tokens: int) -> Work:
        cost = tokens + (self._counter.image_tokens if image is not None else 0)
        size = max(SHORTEST, (cost - 1).bit_length())
        payload = item.text if image is None else image if item.text is None else {"text": item.text, "image": image}
        return Work(BatchKey(role, input_kind(item.text, image), size), cost, payload)

    def _embed_batch(self, key: BatchKey, payloads: list[Any]) -> list[Any]:
        rows = encode_inputs(self._encoders[key.role], payloads, len(payloads), self.normalize)
        return [row if np.isfinite(row).all() else ValueError("not finite") for row in rows]

    def _search_batch(self, key: tuple[int, str | None], payloads: list[Any]) -> list[Any]:
        if self.retriever is None:
            raise RuntimeError("there is no index")
        conditions = None if key[1] is None else json.loads(key[1])
        try:
            found: list[Any] = searching.search(self.retriever, np.stack(payloads), key[0], conditions)
        except (TypeError, ValueError) as error:  # the filter, which all queries of a batch share
            return [error] * len(payloads)
        return found

    async def _in_pool(self, function: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    @contextmanager
    def _reserved(self, pixels: int) -> Iterator[None]:
        """Reserve memory for decoded images while a request is in progress."""
        limit = self.options.max_pending_pixels
        if pixels > limit:
            raise RequestError(413, f"the images of a request may have {limit} pixels in total; got {pixels}")
        if self._pending_pixels + pixels > limit:
            raise overloaded("too many images are being processed; repeat the request later")
        self._pending_pixels += pixels
        try:
            yield
        finally:
            self._pending_pixels -= pixels


async def _submit(batcher: Batcher, works: list[Work]) -> list[Any]:
    try:
        return await batcher.submit(works)
    except QueueFullError as error:
        raise overloaded(f"the service is overloaded: {error}; repeat the request later") from error
    except RuntimeError as error:
        raise RequestError(503, str(error)) from error
