"""Evaluation of the word alignment on the dev split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ciea_hf.training.distributed import gather_objects, process_rank, world_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.retrieval.documents import DocumentView
    from ciea_hf.training.data.collator import Collator

NEAREST = 4


class WordEvaluator:
    """Measures how many words of captions are among the nearest words of a patch of their image.

    Args:
        view: View of the dev corpus whose content is `"image"`.
        model: Model in training.
        collator: Collator that preprocesses images.
        special_tokens: Token ids that are not words.
        batch_size: Number of images per forward pass.

    Attributes:
        metric: Name of the metric that selects the best model.
    """

    metric = f"words@{NEAREST}"

    def __init__(
        self,
        view: DocumentView,
        model: CIEAModel,
        collator: Collator,
        special_tokens: frozenset[int],
        batch_size: int = 128,
    ) -> None:
        self.view = view
        self.model = model
        self.collator = collator
        self.special_tokens = special_tokens
        self.batch_size = batch_size
        captions = view.texts()
        rows = [row for row, kind in enumerate(view.kinds) if kind == "image" and captions[row] is not None]
        self.rows = rows[process_rank() :: world_size()]

    def __call__(self, aligner: nn.Module) -> dict[str, float]:
        """Return the share over all processes, each of which must call this.

        Args:
            aligner: [`WordAligner`] around the model, unwrapped.
        """
        found = words = 0
        with torch.no_grad():
            weight: torch.Tensor = self.model.get_input_embeddings().weight  # type: ignore[assignment]
            table = F.normalize(weight.float(), dim=-1)
            is_word = torch.ones(len(table), dtype=torch.bool, device=table.device)
            is_word[torch.tensor(sorted(self.special_tokens), device=table.device)] = False
            for start in range(0, len(self.rows), self.batch_size):
                near, expected = self._batch(aligner, self.rows[start : start + self.batch_size], table, is_word)
                found += sum(len(a & b) for a, b in zip(near, expected, strict=True))
                words += sum(map(len, expected))
        shares = gather_objects((found, words))
        return {self.metric: sum(share[0] for share in shares) / max(sum(share[1] for share in shares), 1)}

    def _batch(
        self, aligner: nn.Module, rows: list[int], table: Tensor, is_word: Tensor
    ) -> tuple[list[set[int]], list[set[int]]]:
        """Return the nearest words of each image, and the words of its caption."""
        documents = [document for document in map(self.view.read, rows) if document is not None and document.has_image]
        if not documents:
            return [], []
        patches: Tensor = aligner(self.collator.group_documents(documents))[0]  # (images, P, D)
        scores = F.normalize(patches.float(), dim=-1) @ table.T  # (images, P, tokens)
        nearest = scores.masked_fill(~is_word, -torch.inf).topk(NEAREST, dim=-1).indices.flatten(1).tolist()
        captions = [self.view.text(document.row) or "" for document in documents]
        tokens = self.collator.processor.tokenizer(captions, add_special_tokens=False)["input_ids"]
        return [set(ids) for ids in nearest], [set(ids) - self.special_tokens for ids in tokens]
