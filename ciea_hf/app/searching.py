"""Searches and explanations of the page, without its layout."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ciea_hf.app import cards
from ciea_hf.app.explaining import dialog, explanation
from ciea_hf.app.queries import DEFAULT_TOP_K, KINDS, Query
from ciea_hf.serve.searching import hit_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ciea_hf.app.systems import System
    from ciea_hf.retrieval import Hit

_THUMBNAILS = 1000  # images kept as data URIs, about 20 KB each
INVITATION = "Type a text, drop an image, or both."


@dataclass(frozen=True)
class Answer:
    """What the page shows after a search.

    Attributes:
        status: HTML of the line above the hits.
        columns: HTML of the hits, one entry per system.
        link: Parameters of the URL that repeats the search.
        query: The query, or `None` if nothing was searched.
        hits: Hits by id, one mapping per system.
    """

    status: str
    columns: Sequence[str]
    link: str = ""
    query: Query | None = None
    hits: Sequence[Mapping[str, Hit]] = field(default_factory=tuple)


class Searcher:
    """Answers the searches of the page.

    Args:
        systems: Models with their indexes.
        max_pixels: Maximum number of pixels of an uploaded image.
    """

    def __init__(self, systems: Sequence[System], max_pixels: int = 32_000_000) -> None:
        if not systems:
            raise ValueError("`systems` must contain at least one model with its index")
        self.systems = list(systems)
        self.max_pixels = max_pixels
        self._thumbnail = lru_cache(maxsize=_THUMBNAILS)(self._encode)

    def welcome(self) -> Answer:
        """Return what the page shows before the first search: an invitation with examples."""
        links = "".join(
            f'<li><a href="?{cards.escape(urlencode({"q": text}))}">{cards.escape(text)}</a></li>'
            for text in self.systems[0].examples
        )
        examples = f'<p class="ciea-note">For example:</p><ul class="ciea-examples">{links}</ul>' if links else ""
        return Answer(f'<div class="ciea-welcome">{cards.note(INVITATION)}{examples}</div>', [""] * len(self.systems))

    def search(self, text: str | None, image: str | None, kind: str = KINDS[0], top_k: float = DEFAULT_TOP_K) -> Answer:
        """Search all systems.

        Args:
            text: Text of the query, or `None`.
            image: Path of an uploaded image, or `None`.
            kind: Kind of the documents to find, one of `KINDS`.
            top_k: Number of hits.

        Returns:
            The hits; a message if there is no query, or it is invalid.
        """
        try:
            query = self._query(text, image, kind, top_k)
            if query.is_empty:
                return self.welcome()
            start = time.perf_counter()
            found = self._find(query)
        except (ValueError, TypeError) as error:
            return Answer(cards.alert(str(error)), [""] * len(self.systems))
        milliseconds = round(1000 * (time.perf_counter() - start))
        columns = [self._column(number, hits) for number, hits in enumerate(found)]
        status = cards.note(f"{_count(found)} in {milliseconds} ms. {self._hint(found)}")
        by_id = [{hit.id: hit for hit in hits} for hits in found]
        return Answer(status, columns, query.link(), query, by_id)

    def hits(self, text: str | None, image: str | None, kind: str, top_k: float) -> dict[str, list[dict[str, Any]]]:
        """Search all systems, for the API.

        Returns:
            Hits by name of the system, each with `id`, `score`, `kind`, `text` and `metadata`.

        Raises:
            ValueError: If the query is empty or invalid.
        """
        query = self._query(text, image, kind, top_k)
        if query.is_empty:
            raise ValueError("`text` or `image` is required")
        pairs = zip(self.systems, self._find(query), strict=True)
        return {system.name: [hit_fields(hit) for hit in hits] for system, hits in pairs}

    def explain(self, answer: Answer, number: int, document: str) -> str:
        """Explain why an image was found.

        Args:
            answer: The search that found it.
            number: Position of the system that found it.
            document: Id of the document.

        Returns:
            HTML of a dialog: the explanation, or a message if it cannot be explained.
        """
        hit = answer.hits[number].get(document) if number < len(answer.hits) else None
        if hit is None or answer.query is None:
            return _refusal("This image is not among the current hits; search again")
        system = self.systems[number]
        image = system.image_of(hit.id)
        if image is None:
            return _refusal("The image of this document is not available")
        try:
            return explanation(system, hit, image, answer.query.content())
        except (ValueError, TypeError, ImportError) as error:
            return _refusal(str(error))

    def _query(self, text: str | None, image: str | None, kind: str, top_k: float) -> Query:
        words = text.strip() if text else ""
        return Query(words or None, None if image is None else Path(image), kind, int(top_k), self.max_pixels)

    def _find(self, query: Query) -> list[list[Hit]]:
        content = query.content()
        return [system.retriever.search(content, query.top_k, filter=query.conditions)[0] for system in self.systems]

    def _column(self, number: int, hits: Sequence[Hit]) -> str:
        system = self.systems[number]
        title = system.name if len(self.systems) > 1 else None
        return cards.hit_list(title, hits, partial(self._thumbnail, number), system.can_explain)

    def _encode(self, number: int, document: str) -> str | None:
        image = self.systems[number].image_of(document)
        return None if image is None else cards.data_uri(image)

    def _hint(self, found: Sequence[Sequence[Hit]]) -> str:
        pairs = zip(self.systems, found, strict=True)
        shows_map = any(system.can_explain and any(hit.kind == "image" for hit in hits) for system, hits in pairs)
        return "Click an image to see why it was found." if shows_map else ""


def _count(found: Sequence[Sequence[Hit]]) -> str:
    numbers = sorted({len(hits) for hits in found})
    shown = " and ".join(str(number) for number in numbers)
    return f"{shown} {'hit' if numbers == [1] else 'hits'}"


def _refusal(message: str) -> str:
    return dialog("No explanation", cards.alert(message))
