"""Numbers of tokens: for the usage that responses report, and for batches of similar length."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

OTHER_IMAGE_TOKENS = 256  # cost of an image in a model that does not say how many tokens it takes


class TokenCounter:
    """Counts tokens with a copy of the model's tokenizer, because the original's truncation is shared state.

    Args:
        model: CIEA model or SentenceTransformer.
    """

    def __init__(self, model: Any) -> None:
        processor = getattr(model, "processor", None)
        owner = model if processor is None else processor
        self._tokenizer = copy.deepcopy(getattr(owner, "tokenizer", None))
        self.image_tokens = int(getattr(processor, "image_seq_length", None) or OTHER_IMAGE_TOKENS)
        limit = getattr(processor, "text_limit", None) or getattr(model, "max_seq_length", None)
        self.max_tokens = int(limit) if limit else None

    def count(self, texts: Sequence[str | None]) -> list[int]:
        """Count the tokens of texts, with special tokens and without truncation; 0 for a missing text."""
        present = [text for text in texts if text is not None]
        if not present:
            return [0] * len(texts)
        if self._tokenizer is None:
            counts = [len(text.split()) for text in present]
        else:
            counts = [len(ids) for ids in self._tokenizer(present, padding=False, verbose=False)["input_ids"]]
        remaining = iter(counts)
        return [0 if text is None else next(remaining) for text in texts]
