"""Losses of a batch by name, over all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ciea_hf.training.data.batch import TrainingBatch, first_occurrences, membership
from ciea_hf.training.distributed import gather, gather_sizes, process_rank, world_size
from ciea_hf.training.loss.losses import AlignmentLoss, ComplementaryLoss, ContrastiveLoss, weighted_sum

if TYPE_CHECKING:
    from ciea_hf.training.config import TrainingConfig


class Objective(nn.Module):
    """The losses of a stage.

    Args:
        weights: Weight of each loss by name: `"contrastive"` and, unless they are 0, `"reverse"` (each document against
            all queries) and `"complementary"`; or `"alignment"`.
        false_negative_margin: See [`ContrastiveLoss`].
    """

    def __init__(self, weights: dict[str, float], false_negative_margin: float | None = None) -> None:
        super().__init__()
        self.weights = weights
        losses = {
            "contrastive": ContrastiveLoss(false_negative_margin),
            "reverse": ContrastiveLoss(),
            "complementary": ComplementaryLoss(),
            "alignment": AlignmentLoss(),
        }
        self.losses = nn.ModuleDict({name: losses[name] for name in weights})

    @classmethod
    def of_stage(cls, config: TrainingConfig) -> Objective:
        """Build the losses of a stage: L = L_c + lambda L_comp (section 3.3), or alignment."""
        if config.stage == "align":
            return cls({"alignment": 1.0})
        weights = {"contrastive": 1.0}
        if config.reverse_weight:
            weights["reverse"] = config.reverse_weight
        if config.complement_weight and config.content == "full":  # else no image has a caption
            weights["complementary"] = config.complement_weight
        return cls(weights, config.false_negative_margin)

    @property
    def needs_image_only(self) -> bool:
        """Whether images are also embedded without their captions."""
        return "complementary" in self.weights

    def forward(
        self, embeddings: Tensor, image_only: Tensor, logit_scale: Tensor, batch: TrainingBatch
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            embeddings: (inputs, D) embeddings of queries, reduced queries and documents.
            image_only: (images, D) image-only embeddings.
            logit_scale: Logarithm of the factor that multiplies cosines.
            batch: Batch of these embeddings.

        Returns:
            This process's share of each loss, times the number of processes. The mean over processes is then the loss
            of the global batch, and the mean of the gradients is its gradient, which is what DDP computes.
        """
        sizes = list(zip(*gather_sizes(batch.counts, embeddings.device), strict=True))
        queries, reduced, documents = embeddings.split(batch.counts[:3])
        rows = gather(batch.documents, sizes[2])
        positives, ignored = pair_masks(batch, rows)
        common = {"logit_scale": logit_scale, "total": sum(sizes[0])}
        masks = {"positives": positives, "ignored": ignored}
        losses: dict[str, Tensor] = {}
        if "alignment" in self.losses:
            losses["alignment"] = self.losses["alignment"](
                queries, gather(queries, sizes[0]), documents, gather(documents, sizes[2]), **masks, **common
            )
        if "contrastive" in self.losses:
            losses["contrastive"] = self.losses["contrastive"](queries, gather(documents, sizes[2]), **masks, **common)
        if "reverse" in self.losses:
            losses["reverse"] = self._reverse(queries, documents, positives, ignored, logit_scale, sizes)
        if "complementary" in self.losses:
            positives, ignored = pair_masks(batch, gather(batch.images, sizes[3]))
            losses["complementary"] = self.losses["complementary"](
                reduced,
                gather(image_only, sizes[3]),
                positives[batch.reduced],
                logit_scale,
                ignored[batch.reduced],
                total=sum(sizes[1]),
            )
        return {name: loss * world_size() for name, loss in losses.items()}

    def _reverse(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: Tensor,
        ignored: Tensor,
        logit_scale: Tensor,
        sizes: list[tuple[int, ...]],
    ) -> Tensor:
        """Contrast this process's documents with the queries of all processes; masks are (queries, all documents)."""
        start = sum(sizes[2][: process_rank()])
        own = slice(start, start + len(documents))
        all_positives = gather(positives.long(), sizes[0]).bool()  # (all queries, all documents)
        all_ignored = gather(ignored.long(), sizes[0]).bool()
        loss: Tensor = self.losses["reverse"](
            documents,
            gather(queries, sizes[0]),
            all_positives[:, own].T,
            logit_scale,
            all_ignored[:, own].T,
            total=all_positives.any(dim=0).sum(),
        )
        return loss

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Sum the losses with their weights."""
        return weighted_sum(losses, self.weights)


def pair_masks(batch: TrainingBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks of positives and of ignored documents, both (Q, N), for gathered documents of these corpus rows.

    A document embedded by two processes counts once. Documents that are relevant to a query but not its targets are
    neither positives nor negatives.
    """
    queries = len(batch.query_ids)
    first = first_occurrences(rows)
    positives = membership(batch.targets, queries, rows) & first
    relevant = membership(batch.relevant, queries, rows)
    return positives, (relevant | ~first) & ~positives


def mean_over_processes(values: Tensor) -> Tensor:
    """Average a small tensor over the processes, in place and without gradient."""
    if world_size() > 1:
        torch.distributed.all_reduce(values)
    return values / world_size()
