"""The project's own form, on disk or on the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.columns import CORPUS_COLUMNS, QRELS_COLUMNS, QUERY_COLUMNS, column_values
from ciea_hf.data.dataset import Qrels, RetrievalDataset
from ciea_hf.data.saving import CONFIGS
from ciea_hf.utils import require

if TYPE_CHECKING:
    import datasets


def _is_hub_id(path: str) -> bool:
    return not Path(path).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None


def recognises_own_form(path: str) -> bool:
    """Whether a path is a folder with the configurations of the own form, or the id of a data set on the Hub."""
    return _is_hub_id(path) or any((Path(path) / config).is_dir() for config in CONFIGS)


def read_own_form(path: str, split: str) -> RetrievalDataset:
    """Read a split."""
    queries = _read_config(path, "queries", split, QUERY_COLUMNS)
    qrels: Qrels = {}
    judged = _read_config(path, "qrels", split, QRELS_COLUMNS)
    for query, document, score in zip(*(column_values(judged, column) for column in QRELS_COLUMNS), strict=True):
        qrels.setdefault(str(query), {})[str(document)] = int(score)
    corpus = _read_config(path, "corpus", split, CORPUS_COLUMNS)
    return RetrievalDataset(corpus, queries, qrels, Path(path).name, split)


def _read_config(path: str, config: str, split: str, columns: tuple[str, ...]) -> datasets.Dataset:
    """Read one split of a configuration, memory-mapped; a corpus with one split serves every split."""
    datasets = require("datasets", extra="eval")
    files = {} if _is_hub_id(path) else _local_files(Path(path), config)
    splits = sorted(files) or datasets.get_dataset_split_names(path, config)
    chosen = splits[0] if config == "corpus" and len(splits) == 1 else split
    if chosen not in splits:
        raise ValueError(f"{path}: {config} has no split {split!r}; it has {splits}")
    if files:
        table = datasets.load_dataset("parquet", data_files={chosen: files[chosen]}, split=chosen)
    else:
        table = datasets.load_dataset(path, config, split=chosen)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        where = files[chosen][0] if files else f"{path}, configuration {config}"
        raise ValueError(f"{where}: no column {missing}; it has {table.column_names}")
    return table


def _local_files(folder: Path, config: str) -> dict[str, list[str]]:
    """List a configuration's parquet files by split: ``{split}.parquet`` or ``{split}-00000-of-00001.parquet``."""
    found: dict[str, list[str]] = {}
    for file in sorted((folder / config).glob("*.parquet")):
        found.setdefault(re.sub(r"-\d+(-of-\d+)?$", "", file.stem), []).append(str(file))
    if not found:
        raise FileNotFoundError(f"{folder / config} holds no parquet file; a data set needs {', '.join(CONFIGS)}")
    return found
