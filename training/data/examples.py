"""Training examples: a query, the documents it is compared with, and which of them are relevant."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch.utils.data import Dataset

from ciea_hf.data.copies import with_copies
from ciea_hf.retrieval.documents import DocumentInput
from ciea_hf.training.data.query_images import random_part, random_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from PIL import Image

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.modeling.images_ciea import PreprocessedImage
    from ciea_hf.retrieval.documents import DocumentView
    from ciea_hf.training.data.sampler import SampleKey

logger = logging.getLogger(__name__)


@dataclass
class Example:
    """A query with its documents.

    Attributes:
        query_id: Id of the query.
        query: Text of the query; empty for a query that is an image alone.
        targets: Corpus rows that the query is trained towards; empty if no target can be read.
        relevant: Corpus rows of all documents relevant to the query, and of their copies.
        documents: Targets and negatives.
        captions: Captions of all positive images; `None` for a query without an image among its targets.
        broken: Id of each document whose image cannot be decoded, and the reason.
        query_image: Image of the query, decoded or preprocessed, or `None`.
    """

    query_id: str
    query: str
    targets: list[int]
    relevant: list[int]
    documents: list[DocumentInput]
    captions: list[str] | None = None
    broken: dict[str, str] = field(default_factory=dict)
    query_image: Image.Image | PreprocessedImage | None = None


class Examples(Dataset[Example]):
    """Examples by [`SampleKey`]; all random choices of an example are seeded by its key.

    Args:
        view: View of the corpus, with its policy for images that cannot be decoded.
    """

    def __init__(self, view: DocumentView) -> None:
        self.view = view

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples in an epoch."""

    @abstractmethod
    def __getitem__(self, key: SampleKey) -> Example:
        """Read an example."""

    def _read(self, rows: Iterable[int], broken: dict[str, str]) -> list[DocumentInput]:
        """Read documents, without those that cannot be read; `broken` receives their ids and the reasons."""
        found = (self.view.read(row, broken) for row in rows)
        return [document for document in found if document is not None]


class RetrievalExamples(Examples):
    """Labelled queries, each with one of its positives and, if mined negatives are given, hard negatives.

    Args:
        dataset: Queries and judgements.
        view: View of its corpus.
        negatives: Query id to the corpus rows of its hard negatives, by kind; `None` for in-batch negatives only.
        counts: Number of hard negatives per example, by kind.
        caption_dropout: Probability that an image loses its caption.
        image_queries: Probability that a part of the target's image, alone or with words of the query, replaces the
            query of an image.

    Raises:
        ValueError: If no query has a positive with content, or `negatives` are given and no query has one.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        view: DocumentView,
        negatives: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
        counts: Mapping[str, int] | None = None,
        caption_dropout: float = 0.0,
        image_queries: float = 0.0,
    ) -> None:
        super().__init__(view)
        self.image_queries = image_queries
        self.counts = dict(counts or {})
        self.caption_dropout = caption_dropout
        rows = {identifier: row for row, identifier in enumerate(view.ids)}
        self._usable = frozenset(view.usable_rows())
        self._queries: list[tuple[str, str, list[int]]] = []
        self._copies: dict[str, list[int]] = {}  # rows that equal a positive of the query under another id
        for query, judged in dataset.qrels.items():
            relevant = [rows[document] for document, score in judged.items() if score > 0]
            usable = [row for row in relevant if row in self._usable]
            if usable and query in dataset.query_texts:
                self._queries.append((query, dataset.query_texts[query], usable))
                positives = dataset.relevant(query)
                copies = with_copies(positives, dataset.copies) - positives
                self._copies[query] = sorted(rows[document] for document in copies)
        if not self._queries:
            raise ValueError(f"{dataset.name}/{dataset.split}: no query has a positive to train on")
        self.negatives = {} if negatives is None else self._usable_negatives(dataset, negatives)

    def _usable_negatives(
        self, dataset: RetrievalDataset, negatives: Mapping[str, Mapping[str, Sequence[int]]]
    ) -> dict[str, dict[str, list[int]]]:
        """Select the negatives of the training queries that have content and are not relevant to their query.

        Raises:
            ValueError: If no query has one of a kind that `counts` asks for.
        """
        found: dict[str, dict[str, list[int]]] = {}
        dropped = 0
        for query, _, _ in self._queries:
            relevant = with_copies(dataset.relevant(query), dataset.copies)
            for kind, rows in negatives.get(query, {}).items():
                kept = [row for row in rows if self.view.ids[row] not in relevant]
                dropped += len(rows) - len(kept)
                usable = [row for row in kept if row in self._usable]
                if usable and self.counts.get(kind):
                    found.setdefault(query, {})[kind] = usable
        total, asked = len(self._queries), ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        if not found:
            names = f"are of queries such as {next(iter(negatives))!r}" if negatives else "are empty"
            raise ValueError(
                f"none of the {total} training queries, such as {self._queries[0][0]!r}, has a hard negative "
                f"(asked for: {asked} per query); the negatives {names}"
            )
        if len(found) < total:
            without = total - len(found)
            logger.warning("%d of %d queries have no hard negative (asked for: %s per query)", without, total, asked)
        if dropped:
            logger.warning("hard negatives that are relevant to their query and are not used: %d", dropped)
        return found

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, key: SampleKey) -> Example:
        """Read a query with one positive and its hard negatives."""
        query_id, query, relevant = self._queries[key.number]
        rng = random.Random(f"{key.seed}-{key.epoch}-{query_id}")
        broken: dict[str, str] = {}
        targets = self._read([rng.choice(relevant)], broken)
        negatives: list[DocumentInput] = []
        for kind, count in self.counts.items():
            candidates = self.negatives.get(query_id, {}).get(kind, [])
            negatives += self._read(rng.sample(candidates, min(count, len(candidates))), broken)
        captions = None
        if any(target.has_image for target in targets):
            images = (row for row in relevant if self.view.kinds[row] == "image")
            captions = [text for text in map(self.view.text, images) if text is not None]
        documents = [*targets, *negatives]
        for document in documents:
            if self.caption_dropout and document.has_image and rng.random() < self.caption_dropout:
                document.text = None
        known = [*relevant, *self._copies[query_id]]
        example = Example(query_id, query, [target.row for target in targets], known, documents, captions, broken)
        if self.image_queries and captions is not None and rng.random() < self.image_queries:
            replace_query(example, self.view, rng)
        return example


def replace_query(example: Example, view: DocumentView, rng: random.Random) -> None:
    """Replace the query of an example by a part of the target's image, half of the time with words of the query.

    The example has no complementary query then. An image that cannot be decoded leaves it unchanged.

    Args:
        example: Example whose target is an image, changed in place.
        view: View of the corpus.
        rng: Source of the random choices.
    """
    try:
        image = random_part(view.image(example.targets[0]), rng)
    except (ValueError, FileNotFoundError):
        return
    example.query_image = view.preprocess(image) if view.preprocess else image
    example.query = random_words(example.query, rng) if rng.random() < 0.5 else ""
    example.captions = None


class AlignmentExamples(Examples):
    """Captions, each with its image alone: MARVEL's visual pretraining.

    Images with equal captions are relevant to each other's captions.

    Args:
        view: View of the corpus whose content is `"image"`.

    Raises:
        ValueError: If no image has a caption.
    """

    def __init__(self, view: DocumentView) -> None:
        super().__init__(view)
        self._rows: list[int] = []
        self._same: dict[str, list[int]] = {}
        for row, (kind, text) in enumerate(zip(view.kinds, view.texts(), strict=True)):
            if kind == "image" and text is not None:
                self._rows.append(row)
                self._same.setdefault(text, []).append(row)
        if not self._rows:
            raise ValueError("stage `align` needs images with captions; the corpus has none")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: SampleKey) -> Example:
        """Read a caption as the query and its image as the document."""
        row = self._rows[key.number]
        caption = self.view.text(row) or ""
        broken: dict[str, str] = {}
        documents = self._read([row], broken)
        targets = [document.row for document in documents]
        return Example(self.view.ids[row], caption, targets, self._same[caption], documents, None, broken)


class WarmUpExamples(Examples):
    """Texts that warm up a language model: some words of a caption or text document as the query, and the document.

    Images and labelled queries are not read. The words are drawn anew in every epoch: each is kept with probability
    1/2, and at least one is kept.

    Args:
        view: View of the corpus.

    Raises:
        ValueError: If no document has a text.
    """

    def __init__(self, view: DocumentView) -> None:
        super().__init__(view)
        self._same: dict[str, list[int]] = {}
        for row, text in enumerate(view.texts()):
            if text is not None:
                self._same.setdefault(text, []).append(row)
        self._texts = list(self._same)
        if not self._texts:
            raise ValueError("stage `warm_up` needs texts or captions; the corpus has none")

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, key: SampleKey) -> Example:
        """Read a text and draw its words."""
        text = self._texts[key.number]
        rows = self._same[text]
        rng = random.Random(f"{key.seed}-{key.epoch}-{rows[0]}")
        return Example(
            str(rows[0]), random_words(text, rng, shuffle=True), [rows[0]], rows, [DocumentInput(rows[0], text)]
        )
