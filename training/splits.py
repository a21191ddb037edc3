"""The splits of the data set that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset
    from ciea_hf.training.config import TrainingConfig


def load_split(config: TrainingConfig, split: str) -> RetrievalDataset:
    """Load a split of the configuration's data set; ``demo`` is the embedded benchmark."""
    if not config.dataset:
        raise ValueError("name a `dataset`: a folder or Hub id, or 'demo' for the embedded benchmark")
    if config.dataset == "demo":
        from ciea_hf.demo.benchmark import load_benchmark

        return load_benchmark(split)
    from ciea_hf.data import load_retrieval_dataset

    return load_retrieval_dataset(config.dataset, split=split, format=config.dataset_format)
