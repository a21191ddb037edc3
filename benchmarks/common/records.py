"""Records of finished runs: one small JSON file per run. The tables are generated from them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ciea_hf.evaluation.metrics import per_query_metrics
from ciea_hf.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation import EvaluationResult

DEPTH = 10
CPU = "CPU"
_DIGITS = 5


@dataclass(frozen=True)
class Record:
    """Result of one run.

    Attributes:
        variant: Name of the variant.
        seed: Random seed of the training.
        steps: Training steps after the warm-up.
        overrides: Options of each stage that differ from the training's defaults.
        data: Fingerprint of the evaluation data.
        revision: Git revision of the training code.
        training_seconds: Wall time of the training, including the effect of other load on the machine.
        metrics: Metrics by kind of query.
        ranks: Rank of the first relevant document of each image query, in the order of the data; 0 if it is not in the
            top 10.
        measures: Further measures of the trained model.
        device: Processor or card of the training.
    """

    variant: str
    seed: int
    steps: int
    overrides: dict[str, dict[str, Any]]
    data: str
    revision: str | None
    training_seconds: float
    metrics: dict[str, dict[str, float]]
    ranks: list[int]
    measures: dict[str, float] = field(default_factory=dict)
    device: str = CPU

    @property
    def reciprocal_ranks(self) -> NDArray[np.float64]:
        """Reciprocal rank at 10 of each image query; their mean is MRR@10."""
        ranks = np.array(self.ranks, dtype=np.float64)
        return np.divide(1.0, ranks, out=np.zeros_like(ranks), where=ranks > 0)

    def write(self, folder: Path) -> None:
        """Write the record to a folder, under the name of its variant and seed."""
        write_json(folder / f"{self.variant}-seed{self.seed}.json", asdict(self), indent=None)


def training_device() -> str:
    """Return the name of the card that trainings use on this machine; `CPU` if there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else CPU


def read_records(folder: Path) -> list[Record]:
    """Read the records of a folder, sorted by file name; an empty list if the folder does not exist."""
    return [Record(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def rounded_metrics(result: EvaluationResult) -> dict[str, dict[str, float]]:
    """Return the metrics by kind of query, rounded for a record."""
    rounded = {}
    for kind, values in result.by_kind.items():
        rounded[kind] = {name: round(value, _DIGITS) for name, value in values.items()}
    return rounded


def first_ranks(run: Mapping[str, Mapping[str, float]], dataset: RetrievalDataset) -> list[int]:
    """Return the rank of the first relevant document of each image query, 0 if it is not in the top 10."""
    kinds = dataset.query_kinds()
    name = f"mrr@{DEPTH}"
    ranks = []
    for query, values in per_query_metrics(run, dataset.qrels, [DEPTH]).items():
        if kinds.get(query) == "image":
            ranks.append(round(1 / values[name]) if values[name] else 0)
    return ranks
