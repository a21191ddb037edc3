"""Losses as modules over embeddings and masks, independent of models, batches and processes.

Every loss takes embeddings that are not normalised, computes cosines in float32 or wider, and multiplies them by
`exp(min(logit_scale, ln 100))`, as CLIP does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LOGIT_SCALE = math.log(100.0)


def scaled_cosines(queries: Tensor, documents: Tensor, logit_scale: Tensor) -> Tensor:
    """Compute cosines times the clamped scale.

    Args:
        queries: (Q, D).
        documents: (N, D).
        logit_scale: Natural logarithm of the factor, a scalar.

    Returns:
        (Q, N), in float32, or in float64 if the inputs are.
    """
    queries, documents = (F.normalize(_wide(matrix), dim=-1) for matrix in (queries, documents))
    return queries @ documents.T * _wide(logit_scale).clamp(max=MAX_LOGIT_SCALE).exp()


class ContrastiveLoss(nn.Module):
    """Cross-entropy of each query over all documents: the paper's L_c (section 3.3).

    For a query with several positives, the cross-entropy of each positive is taken over that positive and all
    negatives, excluding the other positives, and averaged over the positives.

    Args:
        false_negative_margin: Negatives whose cosine is at least that of the query's best positive minus this margin
            count as false negatives and are excluded. `None` keeps all negatives.

    Inputs:
        - queries (Q, D), documents (N, D), neither normalised
        - positives (Q, N) bool: the documents each query is trained towards, at least one a row
        - logit_scale, a scalar
        - ignored (Q, N) bool, optional: documents that are neither positive nor negative for a query
        - total, optional: number of queries that the sum is divided by, an integer or a scalar tensor; Q by default

    Examples:
        >>> loss = ContrastiveLoss()
        >>> zeros = torch.zeros(4, 8)
        >>> round(loss(zeros, zeros, torch.eye(4).bool(), torch.tensor(1.0)).exp().item(), 4)
        4.0
    """

    def __init__(self, false_negative_margin: float | None = None) -> None:
        super().__init__()
        self.false_negative_margin = false_negative_margin

    def forward(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: Tensor,
        logit_scale: Tensor,
        ignored: Tensor | None = None,
        total: int | Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the queries' losses divided by `total`, a scalar; 0 without queries."""
        if positives.shape != (len(queries), len(documents)):
            raise ValueError(
                f"`positives` must be of shape (queries, documents) = ({len(queries)}, {len(documents)}); "
                f"got {tuple(positives.shape)}"
            )
        logits = scaled_cosines(queries, documents, logit_scale)
        negatives = ~positives if ignored is None else ~positives & ~ignored
        if self.false_negative_margin is not None:
            negatives = negatives & ~self._false_negatives(logits, positives, logit_scale)
        divisor = len(queries) if total is None else total
        at_least_one = divisor.clamp(min=1) if isinstance(divisor, Tensor) else max(divisor, 1)
        return _cross_entropy(logits, positives, negatives).sum() / at_least_one

    def _false_negatives(self, logits: Tensor, positives: Tensor, logit_scale: Tensor) -> Tensor:
        margin = self.false_negative_margin or 0.0
        cosines = (logits / _wide(logit_scale).clamp(max=MAX_LOGIT_SCALE).exp()).detach()
        if cosines.shape[1] == 0:
            return torch.zeros_like(positives)
        best = cosines.masked_fill(~positives, -torch.inf).amax(dim=1, keepdim=True)
        return cosines >= best - margin


class ComplementaryLoss(ContrastiveLoss):
    """Cross-entropy of each reduced query over the image-only embeddings: the paper's L_comp (section 3.3).

    A reduced query is a query without the tokens of its positive image's caption; an image-only embedding is the
    embedding of an image without its caption. Queries without a positive image, or without any tokens left, have no
    row. Without rows the loss is 0.

    Inputs:
        - reduced_queries (C, D), image-only embeddings (I, D), neither normalised
        - positives (C, I) bool, logit_scale, ignored (C, I), total: as in [`ContrastiveLoss`]
    """


class AlignmentLoss(nn.Module):
    """Image-caption contrast in both directions, averaged: MARVEL's visual pretraining.

    Inputs:
        - captions (B, D), all_captions (A, D), images (B, D), all_images (A, D), not normalised: row `i` of the
          captions belongs to row `i` of the images, and each is contrasted with `all_...` of the other side, which
          contains its partner
        - positives (B, A) bool: position of the partner of each row
        - logit_scale, a scalar
        - ignored (B, A) bool, optional: other rows that fit as well, such as images with the same caption
        - total, optional: number of pairs that the sum is divided by; B by default
    """

    def __init__(self) -> None:
        super().__init__()
        self.one_way = ContrastiveLoss()

    def forward(
        self,
        captions: Tensor,
        all_captions: Tensor,
        images: Tensor,
        all_images: Tensor,
        positives: Tensor,
        logit_scale: Tensor,
        ignored: Tensor | None = None,
        total: int | None = None,
    ) -> Tensor:
        """Return the mean of both directions, a scalar."""
        to_images: Tensor = self.one_way(captions, all_images, positives, logit_scale, ignored, total)
        to_captions: Tensor = self.one_way(images, all_captions, positives, logit_scale, ignored, total)
        return (to_images + to_captions) / 2


class WordAlignmentLoss(nn.Module):
    """Contrast of images and captions by their patches and words, without a language-model pass.

    The score of an image and a caption is the mean over the caption's tokens of the highest cosine with any patch of
    the image. The loss brings projected patches and token embeddings into one space, in which complement weights are
    meaningful.

    Args:
        scale: Factor of the scores.

    Inputs:
        - patches (B, P, D), all_patches (A, P, D): projected patches, not normalised
        - tokens (B, T, D), all_tokens (A, T, D): input embeddings of the captions' tokens, not normalised
        - token_mask (B, T), all_token_mask (A, T) bool: tokens that count; at least one per caption
        - positives (B, A) bool: position of the partner of each row among all
        - ignored (B, A) bool, optional: other rows that fit as well, such as images with the same caption
        - total, optional: number of pairs that the sum is divided by; B by default
    """

    def __init__(self, scale: float = 30.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(
        self,
        patches: Tensor,
        all_patches: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        all_tokens: Tensor,
        all_token_mask: Tensor,
        positives: Tensor,
        ignored: Tensor | None = None,
        total: int | None = None,
    ) -> Tensor:
        """Return the mean of both directions, a scalar; 0 without pairs."""
        negatives = ~positives if ignored is None else ~positives & ~ignored
        to_captions = word_scores(patches, all_tokens, all_token_mask) * self.scale  # (B, A)
        if all_patches is patches and all_tokens is tokens:  # one process: the same scores
            to_images = to_captions.T
        else:
            to_images = word_scores(all_patches, tokens, token_mask).T * self.scale  # (B, A)
        losses = _cross_entropy(to_images, positives, negatives) + _cross_entropy(to_captions, positives, negatives)
        return losses.sum() / 2 / max(len(patches) if total is None else total, 1)


def word_scores(patches: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
    """Score images and captions: mean over tokens of the highest cosine with any patch.

    Args:
        patches: (I, P, D).
        tokens: (C, T, D).
        token_mask: (C, T) bool.

    Returns:
        (I, C), in float32 or wider.
    """
    patches, tokens = (F.normalize(_wide(matrix), dim=-1) for matrix in (patches, tokens))
    similarity = torch.einsum("ipd,ctd->icpt", patches, tokens)
    if not similarity.numel():
        return similarity.sum(dim=(2, 3))
    nearest = similarity.amax(dim=2)  # (I, C, T)
    return (nearest * token_mask).sum(dim=-1) / token_mask.sum(dim=-1).clamp(min=1)


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum losses with their weights: L = L_c + lambda L_comp (section 3.3).

    Args:
        losses: Scalar losses by name.
        weights: Factors by name; 1 if a name is missing.

    Returns:
        The weighted sum, a scalar.
    """
    return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()


def _cross_entropy(logits: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the cross-entropy of each positive against its row's negatives, averaged over the positives: (Q,)."""
    if logits.shape[1] == 0:
        return logits.sum(dim=1)
    # A finite minimum instead of -inf: a row without negatives then has a loss of 0 and finite gradients.
    against = logits.masked_fill(~negatives, torch.finfo(logits.dtype).min / 2)
    partition = torch.logaddexp(logits, against.logsumexp(dim=1, keepdim=True))
    losses = torch.where(positives, partition - logits, 0.0)
    return losses.sum(dim=1) / positives.sum(dim=1).clamp(min=1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
