"""Word alignment: projected patches and token embeddings in one space, before the language model sees any image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ciea_hf.training.distributed import gather, gather_sizes, world_size
from ciea_hf.training.loss.losses import WordAlignmentLoss
from ciea_hf.training.loss.objective import pair_masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.data.batch import InputGroup, TrainingBatch

    Words = tuple[Tensor, Tensor, Tensor]
    """Projected patches (images, P, D), token embeddings (captions, T, D), and mask of the tokens (captions, T)."""


class WordAligner(nn.Module):
    """Projects images and looks up the tokens of captions, without running the language model.

    Args:
        model: Model, of which projector and token table are trained.
        special_tokens: Token ids that are not words.
    """

    special_tokens: torch.Tensor

    def __init__(self, model: CIEAModel, special_tokens: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("special_tokens", torch.tensor(sorted(special_tokens)), persistent=False)

    def forward(self, groups: Sequence[InputGroup]) -> Words:
        """Return patches of the images and tokens of the captions, both in the order of the inputs."""
        device = self.model.logit_scale.device
        width = max([group.input_ids.shape[1] for group in groups if not group.has_image], default=0)
        no_ids = torch.zeros(0, width, dtype=torch.long, device=device)
        ids, masks, patches = [no_ids], [no_ids], []
        text_positions: list[int] = []
        image_positions: list[int] = []
        for given in groups:
            group = given.to(device)
            if group.has_image:
                patches.append(self.model.projector(self._features(group).to(self.model.projector.weight.dtype)))
                image_positions += given.positions.tolist()
            else:
                padding = (0, width - group.input_ids.shape[1])
                ids.append(F.pad(group.input_ids, padding))
                masks.append(F.pad(group.attention_mask, padding))
                text_positions += given.positions.tolist()
        order = _order(text_positions, device)
        token_ids = torch.cat(ids)[order]
        words = torch.cat(masks)[order].bool() & ~torch.isin(token_ids, self.special_tokens)
        config = self.model.config
        nothing = self.model.projector.weight.new_empty(0, config.image_seq_length, config.hidden_size)
        found = torch.cat(patches or [nothing])[_order(image_positions, device)]
        return found, self.model.get_input_embeddings()(token_ids), words

    def _features(self, group: InputGroup) -> Tensor:
        if group.vision_features is not None:
            return group.vision_features
        with torch.no_grad():
            return self.model.get_vision_features(group.pixel_values)  # type: ignore[arg-type]


class WordObjective(nn.Module):
    """The loss of the word alignment over all processes.

    Args:
        scale: See [`WordAlignmentLoss`].
    """

    needs_image_only = False

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.loss = WordAlignmentLoss(scale)

    def forward(self, patches: Tensor, tokens: Tensor, words: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """Compute this process's share of the loss of what [`WordAligner`] returns, times the number of processes."""
        sizes = list(zip(*gather_sizes([len(tokens), len(patches), tokens.shape[1]], tokens.device), strict=True))
        padding = max(sizes[2]) - tokens.shape[1]  # captions of all processes in one tensor
        tokens, words = F.pad(tokens, (0, 0, 0, padding)), F.pad(words, (0, padding))
        positives, ignored = pair_masks(batch, gather(batch.documents, sizes[1]))
        loss = self.loss(
            patches,
            gather(patches, sizes[1]),
            tokens,
            words,
            gather(tokens, sizes[0]),
            gather(words.long(), sizes[0]).bool(),
            positives,
            ignored,
            total=sum(sizes[0]),
        )
        return {"alignment": loss * world_size()}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the loss."""
        return losses["alignment"]


def _order(positions: list[int], device: torch.device) -> Tensor:
    return torch.tensor(positions, dtype=torch.long).argsort().to(device, non_blocking=True)
