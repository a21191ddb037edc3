"""What one step reads: forward passes to run, and which of the embeddings belongs to what."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


@dataclass
class InputGroup:
    """Inputs of one forward pass, all with an image or all without.

    Attributes:
        input_ids: (rows, T), right padded.
        attention_mask: (rows, T).
        pixel_values: (rows, 3, height, width), or None.
        vision_features: Precomputed patch states (rows, P, vision width) in place of pixels, or None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None = None
    vision_features: Tensor | None = None

    def to(self, device: torch.device) -> InputGroup:
        """Copy to a device."""
        return _to_device(self, device)


@dataclass
class TrainingBatch:
    """One process's part of a batch.

    The embeddings of all groups, one after the other, are brought by ``order`` into the order queries, reduced queries,
    documents.

    Attributes:
        groups: The forward passes.
        order: (Q + C + N,) where each input stands among the embeddings of all groups.
        query_ids: Id of each of the Q queries.
        reduced: (C,) the query of each reduced query.
        documents: (N,) corpus row of each document; none occurs twice.
        images: (I,) corpus row of each image part, in the order of the groups.
        targets: (pairs, 2) query and corpus row of the documents that a query is trained towards.
        relevant: (pairs, 2) query and corpus row of everything that is relevant to a query.
        broken: Id of each document that was left out because its image cannot be decoded, and why it cannot.
    """

    groups: list[InputGroup]
    order: Tensor
    query_ids: list[str]
    reduced: Tensor
    documents: Tensor
    images: Tensor
    targets: Tensor
    relevant: Tensor
    broken: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> TrainingBatch:
        """Copy to a device all but the groups, each of which follows when it is embedded."""
        return _to_device(self, device)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Queries, reduced queries, documents, image parts."""
        return len(self.query_ids), len(self.reduced), len(self.documents), len(self.images)


def group_by_length(
    lengths: Sequence[int], limit: int | None = None, slack: float = 0.7, least: int = 16
) -> list[list[int]]:
    """Sort inputs into forward passes so that little of them is padding.

    Args:
        lengths: Tokens of each input.
        limit: Inputs of a pass at most.
        slack: A pass takes no input shorter than this share of its longest ...
        least: ... once it has so many: small passes cost more than padding.

    Returns:
        Positions of the inputs of each pass, the longest first.
    """
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        group = groups[-1] if groups else []
        full = limit is not None and len(group) >= limit
        short = len(group) >= least and lengths[position] < slack * lengths[group[0]]
        if not group or full or short:
            groups.append([position])
        else:
            group.append(position)
    return groups


def membership(pairs: Tensor, queries: int, rows: Tensor) -> Tensor:
    """Say which of the rows belong to which query.

    Args:
        pairs: (pairs, 2) query and corpus row.
        queries: Q.
        rows: (N,) corpus rows.

    Returns:
        (Q, N) bool.
    """
    wanted_rows = rows.expand(queries, -1)
    if not len(pairs) or not wanted_rows.numel():
        return torch.zeros(queries, len(rows), dtype=torch.bool, device=rows.device)
    width = int(torch.maximum(pairs[:, 1].max(), rows.max())) + 1
    known = (pairs[:, 0] * width + pairs[:, 1]).sort().values
    wanted = torch.arange(queries, device=rows.device)[:, None] * width + wanted_rows
    places = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    return known[places] == wanted


def first_occurrences(rows: Tensor) -> Tensor:
    """Mark each value's first place: (N,) bool."""
    if not len(rows):
        return torch.zeros(0, dtype=torch.bool, device=rows.device)
    values, inverse = rows.unique(return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    first = torch.full((len(values),), len(rows), device=rows.device).scatter_reduce(0, inverse, places, "amin")
    return first[inverse] == places


def _to_device(value: T, device: torch.device) -> T:
    """Copy the tensors of a dataclass."""
    content = ((entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value))  # type: ignore[arg-type]
    moved = {name: item.to(device, non_blocking=True) for name, item in content if isinstance(item, Tensor)}
    return dataclasses.replace(value, **moved)  # type: ignore[type-var]
