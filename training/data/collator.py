"""From examples to the forward passes of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ciea_hf.training.data.batch import InputGroup, TrainingBatch, group_by_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ciea_hf.modeling.processing_ciea import CIEAProcessor
    from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
    from ciea_hf.training.data.examples import Example
    from ciea_hf.training.data.reader import DocumentInput


class Collator:
    """Tokenises the queries, reduced queries and documents of a batch and sorts them into forward passes.

    Queries, reduced queries and text documents of like length share passes, and so do images of like caption length. No
    document is embedded twice.

    Args:
        processor: Of the model.
        max_length: Tokens of a query, a text or a caption.
        prompts: Put before queries (``"query"``) and before texts and captions (``"document"``).
        reducer: Makes reduced queries; None for a batch without them.
        chunk_size: Inputs of a forward pass at most.
    """

    def __init__(
        self,
        processor: CIEAProcessor,
        max_length: int = 128,
        prompts: Mapping[str, str] | None = None,
        reducer: ComplementaryQueryBuilder | None = None,
        chunk_size: int | None = None,
    ) -> None:
        self.processor = processor
        self.max_length = max_length
        self.prompts = dict(prompts or {})
        self.reducer = reducer
        self.chunk_size = chunk_size

    def __call__(self, examples: Sequence[Example]) -> TrainingBatch:
        """Make a batch of examples; those without a readable target are left out."""
        broken = {identifier: reason for example in examples for identifier, reason in example.broken.items()}
        examples = [example for example in examples if example.targets]
        documents = list({d.row: d for example in examples for d in example.documents}.values())
        queries = self._tokenize([self._prompt("query") + example.query for example in examples])
        reduced, owners = self._reduce(examples, queries)
        n_texts = len(queries) + len(reduced)
        groups, places, images = self.group_documents(documents, texts=[*queries, *reduced], offset=n_texts)
        order = torch.empty(len(places), dtype=torch.long)
        order[torch.tensor(places, dtype=torch.long)] = torch.arange(len(places))
        return TrainingBatch(
            groups=groups,
            order=order,
            query_ids=[example.query_id for example in examples],
            reduced=torch.tensor(owners, dtype=torch.long),
            documents=torch.tensor([document.row for document in documents], dtype=torch.long),
            images=torch.tensor([documents[i].row for i in images], dtype=torch.long),
            targets=_pairs(example.targets for example in examples),
            relevant=_pairs(example.relevant for example in examples),
            broken=broken,
        )

    def group_documents(
        self, documents: Sequence[DocumentInput], texts: Sequence[list[int]] = (), offset: int = 0
    ) -> tuple[list[InputGroup], list[int], list[int]]:
        """Sort documents, and token ids beside them, into forward passes.

        Args:
            documents: Texts, images and captioned images.
            texts: Token ids of further inputs, numbered from 0.
            offset: Number of the first document.

        Returns:
            The passes; the number of the input that each row of them holds; and the position among the documents of
            each image, in the order of the passes.
        """
        prompt = self._prompt("document")
        worded = [None if d.text is None else prompt + d.text for d in documents]
        ids = self._tokenize(worded, [document.has_image for document in documents])
        plain = dict(enumerate(texts))
        plain |= {offset + i: ids[i] for i, document in enumerate(documents) if not document.has_image}
        numbers = list(plain)
        groups, places, images = [], [], []
        for group in group_by_length([len(plain[number]) for number in numbers], self.chunk_size):
            groups.append(self._pad([plain[numbers[i]] for i in group]))
            places += [numbers[i] for i in group]
        pictured = [i for i, document in enumerate(documents) if document.has_image]
        for group in group_by_length([len(ids[i]) for i in pictured], self.chunk_size):
            chosen = [pictured[i] for i in group]
            groups.append(self._with_images(self._pad([ids[i] for i in chosen]), [documents[i] for i in chosen]))
            places += [offset + i for i in chosen]
            images += chosen
        return groups, places, images

    def group_queries(self, queries: Sequence[str]) -> tuple[list[InputGroup], list[int]]:
        """Sort queries into forward passes; also give the position of the query that each row of them holds."""
        tokens = self._tokenize([self._prompt("query") + query for query in queries])
        groups, places, _ = self.group_documents([], tokens)
        return groups, places

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
        """Token ids of the reduced queries, and which query each belongs to."""
        reduced, owners = [], []
        for i, (example, tokens) in enumerate(zip(examples, queries, strict=True)):
            if self.reducer is None or example.captions is None:
                continue
            left = self.reducer(tokens, example.captions)
            if left is not None:
                reduced.append(left)
                owners.append(i)
        return reduced, owners

    def _pad(self, rows: Sequence[list[int]]) -> InputGroup:
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), int(self.processor.tokenizer.pad_token_id))
        attention_mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, tokens in enumerate(rows):
            input_ids[i, : len(tokens)] = torch.tensor(tokens)
            attention_mask[i, : len(tokens)] = 1
        return InputGroup(input_ids, attention_mask)

    def _with_images(self, group: InputGroup, documents: Sequence[DocumentInput]) -> InputGroup:
        features = [document.features for document in documents if document.features is not None]
        if features:
            group.vision_features = torch.stack(features)
        else:
            pixels = self.processor.image_processor([document.image for document in documents], return_tensors="pt")
            group.pixel_values = pixels["pixel_values"]
        return group


def _pairs(rows: Iterable[Sequence[int]]) -> Tensor:
    """Number and row of every entry: (pairs, 2)."""
    found = [(i, row) for i, group in enumerate(rows) for row in group]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 2)
