"""The model in training as an encoder, for the dev evaluation and for mining."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ciea_hf.retrieval.documents import DocumentInput
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.utils import short_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.data.batch import InputGroup
    from ciea_hf.training.data.collator import Collator


class TrainingEncoder:
    """Embeds queries and documents as training does: the collator's tokens, cached features, the engine's wrapper.

    Every call is one forward pass of the embedder over all inputs, so that engines that shard weights can run it in
    step: processes must make equally many calls.

    Args:
        model: Model, on its device.
        embedder: [`Embedder`] around the model, possibly wrapped by Accelerate, in evaluation mode.
        collator: Collator that tokenises; its `chunk_size` limits the forward passes.
    """

    takes_mixed_inputs = True

    def __init__(self, model: CIEAModel, embedder: nn.Module, collator: Collator) -> None:
        self.model = model
        self.embedder = embedder
        self.collator = collator
        self.device = model.device

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of how texts are truncated and prompted."""
        prompts = sorted(self.collator.prompts.items())
        return short_hash(f"{model_fingerprint(self.model)} {self.collator.max_length} {prompts}")

    def encode_query(self, inputs: Sequence[str], **_: Any) -> Tensor:
        """Embed queries: (queries, D), normalised."""
        return self._embed(self.collator.group_queries(inputs))

    def encode_document(self, inputs: Sequence[Any], **_: Any) -> Tensor:
        """Embed inputs of [`DocumentView.batch`], with images or their features: (documents, D), normalised."""
        return self._embed(self.collator.group_documents([_document(*item) for item in enumerate(inputs)]))

    def _embed(self, groups: list[InputGroup]) -> Tensor:
        with torch.no_grad():
            embeddings: Tensor = F.normalize(self.embedder(groups)[0].float(), dim=-1)
            broken = int((~embeddings.isfinite().all(dim=-1)).sum())
        if broken:
            raise FloatingPointError(
                f"{broken} of {len(embeddings)} embeddings are not finite: did the training diverge?"
            )
        return embeddings


def _document(position: int, item: Any) -> DocumentInput:
    if isinstance(item, str):
        return DocumentInput(position, item)
    text, image = (item["text"], item["image"]) if isinstance(item, dict) else (None, item)
    if isinstance(image, torch.Tensor):
        return DocumentInput(position, text, features=image)
    return DocumentInput(position, text, image=image)
