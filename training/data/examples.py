"""Training examples: a query, the documents it meets, and what is relevant to it."""

from __future__ import annotations

import random
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch.utils.data import Dataset

from ciea_hf.data import column_values
from ciea_hf.training.data.reader import DocumentInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.training.data.reader import CorpusReader
    from ciea_hf.training.data.sampler import SampleKey


@dataclass
class Example:
    """A query with its documents.

    Attributes:
        query_id: Of the query.
        query: Its text.
        targets: Corpus rows that the query is trained towards; empty if none of them can be read.
        relevant: Corpus rows of all that is relevant to it.
        documents: Targets and negatives, read.
        captions: Captions of all its positive images; None for a query without a positive image among its targets.
        broken: Id of each document whose image cannot be decoded, and why it cannot.
    """

    query_id: str
    query: str
    targets: list[int]
    relevant: list[int]
    documents: list[DocumentInput]
    captions: list[str] | None = None
    broken: dict[str, str] = field(default_factory=dict)


class Examples(Dataset[Example]):
    """Examples by :class:`SampleKey`; what is random in one is a function of its draw.

    Args:
        reader: Of the corpus.
        on_broken_image: ``"skip"`` leaves out documents whose image cannot be decoded, ``"fail"`` raises.
    """

    def __init__(self, reader: CorpusReader, on_broken_image: Literal["skip", "fail"] = "skip") -> None:
        self.reader = reader
        self.on_broken_image = on_broken_image

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples in an epoch."""

    @abstractmethod
    def __getitem__(self, draw: SampleKey) -> Example:
        """Read an example."""

    def _read(self, rows: Sequence[int]) -> tuple[list[DocumentInput], dict[str, str]]:
        """Read documents; give those that can be read, and the ids of those that cannot with the reasons."""
        documents: list[DocumentInput] = []
        broken: dict[str, str] = {}
        for row in rows:
            try:
                documents.append(self.reader.read(row))
            except (ValueError, FileNotFoundError) as error:
                identifier = self.reader.ids[row]
                if self.on_broken_image == "fail":
                    raise type(error)(f"document {identifier!r}: {error}") from error
                broken[identifier] = str(error)
        return documents, broken


class RetrievalExamples(Examples):
    """Labelled queries, each with one of its positives and, if mined ones are given, hard negatives.

    Args:
        dataset: Queries and judgements.
        reader: Of its corpus.
        on_broken_image: See :class:`Examples`.
        negatives: Query id to the corpus rows of its hard negatives, by kind; None for in-batch negatives alone.
        counts: How many hard negatives of each kind an example draws.

    Raises:
        ValueError: If no query has a positive that can be read.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        reader: CorpusReader,
        on_broken_image: Literal["skip", "fail"] = "skip",
        negatives: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(reader, on_broken_image)
        self.negatives = negatives or {}
        self.counts = dict(counts or {})
        rows = {identifier: row for row, identifier in enumerate(reader.ids)}
        texts = dict(zip(column_values(dataset.queries, "id"), column_values(dataset.queries, "text"), strict=True))
        self._queries: list[tuple[str, str, list[int]]] = []
        for query, judged in dataset.qrels.items():
            relevant = [rows[document] for document, score in judged.items() if score > 0]
            usable = [row for row in relevant if reader.usable(row)]
            if usable and query in texts:
                self._queries.append((query, texts[query], usable))
        if not self._queries:
            raise ValueError(f"{dataset.name}/{dataset.split}: no query has a positive to train on")

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, draw: SampleKey) -> Example:
        """Read a query with one positive and its hard negatives."""
        query_id, query, relevant = self._queries[draw.number]
        rng = random.Random(f"{draw.seed}-{draw.epoch}-{query_id}")
        targets, broken = self._read([rng.choice(relevant)])
        negatives: list[DocumentInput] = []
        for kind, count in self.counts.items():
            candidates = [row for row in self.negatives.get(query_id, {}).get(kind, ()) if self.reader.usable(row)]
            read, unreadable = self._read(rng.sample(candidates, min(count, len(candidates))))
            negatives += read
            broken |= unreadable
        captions = None
        if any(target.has_image for target in targets):
            images = (row for row in relevant if self.reader.kinds[row] == "image")
            captions = [text for text in map(self.reader.text, images) if text is not None]
        return Example(
            query_id, query, [target.row for target in targets], relevant, [*targets, *negatives], captions, broken
        )


class AlignmentExamples(Examples):
    """Captions, each with its image alone: MARVEL's visual pretraining.

    Images with the same caption are relevant to one another's captions.

    Args:
        reader: Of the corpus; it has to read images.
        on_broken_image: See :class:`Examples`.

    Raises:
        ValueError: If no image has a caption.
    """

    def __init__(self, reader: CorpusReader, on_broken_image: Literal["skip", "fail"] = "skip") -> None:
        super().__init__(reader, on_broken_image)
        self._rows: list[int] = []
        self._same: dict[str, list[int]] = {}
        for row, (kind, text) in enumerate(zip(reader.kinds, reader.texts(), strict=True)):
            if kind == "image" and text is not None:
                self._rows.append(row)
                self._same.setdefault(text, []).append(row)
        if not self._rows:
            raise ValueError("no document of the corpus has an image and a caption to align")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, draw: SampleKey) -> Example:
        """Read a caption as the query and its image as the document."""
        row = self._rows[draw.number]
        caption = self.reader.text(row) or ""
        documents, broken = self._read([row])
        for document in documents:
            document.text = None
        return Example(
            self.reader.ids[row], caption, [d.row for d in documents], self._same[caption], documents, None, broken
        )


class WarmUpExamples(Examples):
    """Texts to warm up a language model with: a few words of a caption or text document, and the document.

    No picture and no labelled query is read. The words are drawn anew in every epoch, each kept with a probability of
    one half, and at least one of them.

    Args:
        dataset: Unused but for its name in errors.
        reader: Of its corpus.

    Raises:
        ValueError: If no document has a text.
    """

    def __init__(self, dataset: RetrievalDataset, reader: CorpusReader) -> None:
        super().__init__(reader)
        self._same: dict[str, list[int]] = {}
        for row, text in enumerate(reader.texts()):
            if text is not None:
                self._same.setdefault(text, []).append(row)
        self._texts = list(self._same)
        if not self._texts:
            raise ValueError(f"{dataset.name}/{dataset.split}: no document has a text to warm up with")

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, draw: SampleKey) -> Example:
        """Read a text document, and draw its words."""
        text = self._texts[draw.number]
        rows = self._same[text]
        rng = random.Random(f"{draw.seed}-{draw.epoch}-{rows[0]}")
        words = text.split()
        kept = [word for word in words if rng.random() < 0.5] or [rng.choice(words)]
        rng.shuffle(kept)
        return Example(str(rows[0]), " ".join(kept), [rows[0]], rows, [DocumentInput(rows[0], text)])
