"""Input of one training step: forward passes, and what each of the embeddings belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
MOST_ROWS = 1 << 32  # of a corpus


@dataclass
class InputGroup:
    """Inputs of one forward pass, all with an image or all without.

    Attributes:
        positions: (rows,) position of each row among the inputs of all groups.
        input_ids: (rows, T), right padded.
        attention_mask: (rows, T).
        pixel_values: (rows, 3, height, width), or `None`.
        vision_features: Precomputed patch features (rows, P, vision width) in place of pixels, or `None`.
        is_query: Whether the inputs are queries, whose images are not embedded alone.
    """

    positions: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None = None
    vision_features: Tensor | None = None
    is_query: bool = False

    @property
    def has_image(self) -> bool:
        """Whether the inputs have images, as pixels or as features."""
        return self.pixel_values is not None or self.vision_features is not None

    def to(self, device: torch.device) -> InputGroup:
        """Copy to a device."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> InputGroup:
        """Copy to pinned memory, from which copies to a GPU do not block."""
        return _map_tensors(self, torch.Tensor.pin_memory)


@dataclass
class TrainingBatch:
    """One process's part of a batch.

    The inputs are numbered: queries first, then reduced queries, then documents.

    Attributes:
        groups: Forward passes.
        query_ids: Ids of the Q queries.
        reduced: (C,) query of each reduced query.
        documents: (N,) corpus row of each document; rows are unique.
        images: (I,) corpus row of each image-only embedding, in the order of the groups.
        targets: (pairs, 2) query and corpus row of the documents that a query is trained towards.
        relevant: (pairs, 2) query and corpus row of all documents relevant to a query.
        broken: Id of each document whose image cannot be decoded, and the reason.
    """

    groups: list[InputGroup]
    query_ids: list[str]
    reduced: Tensor
    documents: Tensor
    images: Tensor
    targets: Tensor
    relevant: Tensor
    broken: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> TrainingBatch:
        """Copy everything except the groups to a device; each group follows when it is embedded."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> TrainingBatch:
        """Copy everything to pinned memory; a `DataLoader` with `pin_memory=True` calls this."""
        groups = [group.pin_memory() for group in self.groups]
        return dataclasses.replace(_map_tensors(self, torch.Tensor.pin_memory), groups=groups)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Number of queries, reduced queries, documents and image-only embeddings."""
        return len(self.query_ids), len(self.reduced), len(self.documents), len(self.images)


def group_by_length(
    lengths: Sequence[int], limit: int | None = None, slack: float = 0.7, minimum: int = 16
) -> list[list[int]]:
    """Sort inputs into forward passes with little padding.

    Args:
        lengths: Number of tokens of each input.
        limit: Maximum number of inputs per pass.
        slack: A pass takes no input shorter than this share of its longest one ...
        minimum: ... once it has this many inputs: small passes cost more than padding.

    Returns:
        Positions of the inputs of each pass, longest first.
    """
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        group = groups[-1] if groups else []
        full = limit is not None and len(group) >= limit
        short = len(group) >= minimum and lengths[position] < slack * lengths[group[0]]
        if not group or full or short:
            groups.append([position])
        else:
            group.append(position)
    return groups


def membership(pairs: Tensor, queries: int, rows: Tensor) -> Tensor:
    """Mark the rows that are paired with each query.

    Pairs are encoded as single integers and looked up by binary search, so that memory grows with the pairs and with
    the result, not with the size of the corpus. The host reads no value, so it need not wait for a GPU.

    Args:
        pairs: (pairs, 2) query and corpus row.
        queries: Number of queries, Q.
        rows: (N,) corpus rows.

    Returns:
        (Q, N) bool.
    """
    wanted_rows = rows.expand(queries, -1)
    if not len(pairs) or not wanted_rows.numel():
        return torch.zeros(queries, len(rows), dtype=torch.bool, device=rows.device)
    known = (pairs[:, 0] * MOST_ROWS + pairs[:, 1]).sort().values
    wanted = torch.arange(queries, device=rows.device)[:, None] * MOST_ROWS + wanted_rows
    positions = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    return known[positions] == wanted


def first_occurrences(rows: Tensor) -> Tensor:
    """Mark the first occurrence of each value: (N,) bool."""
    ordered, order = rows.sort(stable=True)  # equal values in their order; `unique` would make the host wait for a GPU
    differs = torch.ones_like(rows, dtype=torch.bool)
    differs[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(differs).scatter(0, order, differs)


def _map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Apply a function to the tensors of a dataclass."""
    mapped = {}
    for entry in dataclasses.fields(value):  # type: ignore[arg-type]
        item = getattr(value, entry.name)
        if isinstance(item, Tensor):
            mapped[entry.name] = function(item)
    return dataclasses.replace(value, **mapped)  # type: ignore[type-var]
