"""Records of finished runs: one small JSON file for each, from which tables are drawn."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.evaluation.metrics import per_query_metrics
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation import EvaluationResult

DEPTH = 10
_DIGITS = 5


@dataclass(frozen=True)
class Record:
    """What a run came to.

    Attributes:
        variant: Its variant's name.
        seed: Of its training.
        steps: Of its training, after the warm-up.
        settings: Stage to what the training was told.
        data: Fingerprint of what it was evaluated on.
        revision: Git revision of the code that trained it.
        training_seconds: Wall time of the training, on whatever else the machine did.
        metrics: Kind of query to metrics.
        ranks: For each image query, in the data's order, the rank of the first relevant document; 0 below rank 10.
    """

    variant: str
    seed: int
    steps: int
    settings: dict[str, dict[str, Any]]
    data: str
    revision: str | None
    training_seconds: float
    metrics: dict[str, dict[str, float]]
    ranks: list[int]

    @property
    def reciprocal_ranks(self) -> NDArray[np.float64]:
        """MRR@10 of each image query."""
        ranks = np.array(self.ranks, dtype=np.float64)
        return np.divide(1.0, ranks, out=np.zeros_like(ranks), where=ranks > 0)

    def write(self, folder: Path) -> None:
        """Write the record among others."""
        with atomic_write(folder / f"{self.variant}-seed{self.seed}.json") as path:
            path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_records(folder: Path) -> list[Record]:
    """Read the records of a folder, in the order of their names; none if there is no folder."""
    return [Record(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def rounded_metrics(result: EvaluationResult) -> dict[str, dict[str, float]]:
    """Metrics by kind of query, rounded for a record."""
    return {kind: {name: round(v, _DIGITS) for name, v in values.items()} for kind, values in result.by_kind.items()}


def first_ranks(run: Mapping[str, Mapping[str, float]], dataset: RetrievalDataset) -> list[int]:
    """Rank of the first relevant document of each image query, 0 below rank 10."""
    kinds = dataset.query_kinds()
    name = f"mrr@{DEPTH}"
    found = per_query_metrics(run, dataset.qrels, [DEPTH])
    return [
        round(1 / values[name]) if values[name] else 0 for query, values in found.items() if kinds.get(query) == "image"
    ]
