"""Collation of examples into the forward passes of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ciea_hf.training.data.batch import InputGroup, TrainingBatch, group_by_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ciea_hf.modeling.processing_ciea import CIEAProcessor
    from ciea_hf.retrieval.documents import DocumentInput
    from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
    from ciea_hf.training.data.examples import Example


class Collator:
    """Tokenises the queries, reduced queries and documents of a batch and sorts them into forward passes.

    Queries, reduced queries and text documents of similar length share passes, and so do images with captions of
    similar length. No document is embedded twice.

    Args:
        processor: Processor of the model.
        max_length: Maximum number of tokens of a query, a text or a caption.
        prompts: Prompts prepended to queries (`"query"`) and to texts and captions (`"document"`).
        query_builder: Builds reduced queries; `None` for a batch without them.
        chunk_size: Maximum number of inputs per forward pass.
        of_equal_length: Whether passes may be small, so that hardly any position is padding. That pays on CPUs for
            models that embed all passes of a step at once.
    """

    def __init__(
        self,
        processor: CIEAProcessor,
        max_length: int = 128,
        prompts: Mapping[str, str] | None = None,
        query_builder: ComplementaryQueryBuilder | None = None,
        chunk_size: int | None = None,
        of_equal_length: bool = False,
    ) -> None:
        self.processor = processor
        self.max_length = max_length
        self.prompts = dict(prompts or {})
        self.query_builder = query_builder
        self.chunk_size = chunk_size
        self.of_equal_length = of_equal_length

    def __call__(self, examples: Sequence[Example]) -> TrainingBatch:
        """Build a batch of examples, without those that have no readable target."""
        broken = {identifier: reason for example in examples for identifier, reason in example.broken.items()}
        examples = [example for example in examples if example.targets]
        documents = list({d.row: d for example in examples for d in example.documents}.values())
        images_of_queries = {i: e.query_image for i, e in enumerate(examples) if e.query_image is not None}
        queries = self._tokenize(
            [self._prompt("query") + example.query if example.query else None for example in examples],
            [i in images_of_queries for i in range(len(examples))],
        )
        reduced, owners = self._reduce(examples, queries)
        groups, images = self._group([*queries, *reduced], documents, images_of_queries)
        return TrainingBatch(
            groups=groups,
            query_ids=[example.query_id for example in examples],
            reduced=torch.tensor(owners, dtype=torch.long),
            documents=torch.tensor([document.row for document in documents], dtype=torch.long),
            images=torch.tensor([documents[i].row for i in images], dtype=torch.long),
            targets=_pairs(example.targets for example in examples),
            relevant=_pairs(example.relevant for example in examples),
            broken=broken,
        )

    def group_queries(self, queries: Sequence[str]) -> list[InputGroup]:
        """Sort queries into forward passes."""
        return self._group(self._tokenize([self._prompt("query") + query for query in queries]), [])[0]

    def group_documents(self, documents: Sequence[DocumentInput]) -> list[InputGroup]:
        """Sort documents into forward passes."""
        return self._group([], documents)[0]

    def _group(
        self,
        queries: Sequence[list[int]],
        documents: Sequence[DocumentInput],
        images_of_queries: Mapping[int, Any] | None = None,
    ) -> tuple[list[InputGroup], list[int]]:
        """Sort token ids and documents into forward passes.

        Args:
            queries: Token ids of queries; they are inputs 0, 1 and so on.
            documents: Texts, images and captioned images; their positions follow those of the queries.
            images_of_queries: Images of queries, by their position.

        Returns:
            The passes, and the index among the documents of each document's image, in the order of the passes.
        """
        prompt = self._prompt("document")
        prompted = [None if d.text is None else prompt + d.text for d in documents]
        ids = self._tokenize(prompted, [document.has_image for document in documents])
        images_of_queries = images_of_queries or {}
        without_image = {i: tokens for i, tokens in enumerate(queries) if i not in images_of_queries}
        with_image = []
        for i, document in enumerate(documents):
            if document.has_image:
                with_image.append(i)
            else:
                without_image[len(queries) + i] = ids[i]
        positions = list(without_image)
        groups: list[InputGroup] = []
        images: list[int] = []
        for group in self._passes([len(without_image[position]) for position in positions]):
            chosen = [positions[i] for i in group]
            groups.append(self._pad(chosen, [without_image[position] for position in chosen]))
        for group in self._passes([len(ids[i]) for i in with_image]):
            chosen = [with_image[i] for i in group]
            padded = self._pad([len(queries) + i for i in chosen], [ids[i] for i in chosen])
            groups.append(self._add_images(padded, [documents[i] for i in chosen]))
            images += chosen
        positions = list(images_of_queries)
        for group in self._passes([len(queries[position]) for position in positions]):
            chosen = [positions[i] for i in group]
            padded = self._pad(chosen, [queries[position] for position in chosen])
            padded.pixel_values = self.processor.pixel_values(images_of_queries[position] for position in chosen)
            padded.is_query = True
            groups.append(padded)
        return groups, images

    def _passes(self, lengths: Sequence[int]) -> list[list[int]]:
        if self.of_equal_length:
            return group_by_length(lengths, self.chunk_size, slack=0.9, minimum=1)
        return group_by_length(lengths, self.chunk_size)

    def _prompt(self, name: str) -> str:
        return self.prompts.get(name, "")

    def _tokenize(self, texts: Sequence[str | None], has_image: Sequence[bool] | None = None) -> list[list[int]]:
        if not texts:
            return []
        has_image = [False] * len(texts) if has_image is None else has_image
        batch = self.processor.tokenize(texts, has_image, max_length=self.max_length, return_tensors="np")
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return [ids[mask.astype(bool)].tolist() for ids, mask in rows]

    def _reduce(self, examples: Sequence[Example], queries: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
        """Return the token ids of the reduced queries, and the query of each."""
        reduced, owners = [], []
        for i, (example, tokens) in enumerate(zip(examples, queries, strict=True)):
            if self.query_builder is None or example.captions is None:
                continue
            remaining = self.query_builder(tokens, example.captions)
            if remaining is not None:
                reduced.append(remaining)
                owners.append(i)
        return reduced, owners

    def _pad(self, positions: Sequence[int], rows: Sequence[list[int]]) -> InputGroup:
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), int(self.processor.tokenizer.pad_token_id))
        attention_mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, tokens in enumerate(rows):
            input_ids[i, : len(tokens)] = torch.tensor(tokens)
            attention_mask[i, : len(tokens)] = 1
        return InputGroup(torch.tensor(positions, dtype=torch.long), input_ids, attention_mask)

    def _add_images(self, group: InputGroup, documents: Sequence[DocumentInput]) -> InputGroup:
        features = [document.features for document in documents if document.features is not None]
        if features:
            group.vision_features = torch.stack(features)
        else:
            group.pixel_values = self.processor.pixel_values(document.image for document in documents)
        return group


def _pairs(rows: Iterable[Sequence[int]]) -> Tensor:
    """Return index and row of every entry: (pairs, 2)."""
    found = [(i, row) for i, group in enumerate(rows) for row in group]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 2)
