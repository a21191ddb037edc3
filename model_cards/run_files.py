"""What a card is filled from: the record of a run, its results, and the model's own files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # huggingface_hub depends on it
from safetensors import safe_open

from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping

BEST = "best"  # what training calls the best model of a stage, in the stage's folder
RUN_FILE = "run.json"
RESULTS_FILE = "eval_results.json"
CONFIGURATION_FILES = ("training_config.yaml", "training_config.yml", "training_config.json")
# the folders of an absolute path, of POSIX or of Windows, anywhere in a text; addresses such as https://... are none
ABSOLUTE_FOLDER = re.compile(r"(?<![\w/:.])(?:~?/(?:[^\s'\"/=,]+/)+|[A-Za-z]:[\\/](?:[^\s'\"\\/=,]+[\\/])*)")
RUN_KEYS = (
    "command", "config", "versions", "git_revision", "seed", "dataset", "data_fingerprint", "base_model", "license",
    "language", "steps", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one evaluation.

    Attributes:
        dataset: Name of the data set, or its id on the Hub.
        split: Its split, if known.
        metrics: Metric name to value over all queries.
        by_kind: The same for the queries of each kind of positive.
        counts: Number of documents and queries.
        settings: How the evaluation was made.
    """

    dataset: str
    split: str | None
    metrics: dict[str, float]
    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def collect_run(folder: Path, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put a run's record together: what is given, before what the files in and beside the folder say.

    Args:
        folder: The model's folder. Its `run.json` and `training_config.yaml` (or `.json`) are read; where it is `best`,
            the best model of a run, those of its parent, the run's folder, too.
        given: Any of `RUN_KEYS`.

    Returns:
        The record; unknown values are left out, absolute paths are cut to their last part.

    Raises:
        ValueError: If a key is unknown, or a file cannot be read.
    """
    unknown = sorted(set(given or {}) - set(RUN_KEYS))
    if unknown:
        raise ValueError(f"`run` has unknown key(s) {', '.join(unknown)}; valid keys: {', '.join(RUN_KEYS)}")
    record: dict[str, Any] = {}
    for place in (folder.parent, folder) if folder.name == BEST else (folder,):
        record.update(_read_mapping(place / RUN_FILE))
        configuration = next((place / name for name in CONFIGURATION_FILES if (place / name).is_file()), None)
        if configuration is not None:
            record["config"] = _read_mapping(configuration)
    record.update(given or {})
    config = record.get("config") or {}
    for key in ("seed", "dataset"):
        if record.get(key) is None:
            record[key] = config.get(key)
    known = {key: record[key] for key in RUN_KEYS if record.get(key) not in (None, "", {}, [])}
    return {key: without_private_paths(value) for key, value in known.items()}


def collect_results(folder: Path, given: Mapping[str, Any] | None, run: Mapping[str, Any]) -> list[Evaluation]:
    """Bring evaluation results into one form.

    Args:
        folder: The model's folder, whose `eval_results.json` is read if nothing is given.
        given: What `EvaluationResult.to_dict()` gives, several of those by name, or metrics alone.
        run: The run's record, which names the data set where the results do not.

    Returns:
        One entry for each evaluation.

    Raises:
        ValueError: If the results have none of these forms.
    """
    if given is None:
        given = _read_mapping(folder / RESULTS_FILE)
    if not given:
        return []
    if "metrics" in given:
        entries = [dict(given)]
    elif all(isinstance(value, dict) and "metrics" in value for value in given.values()):
        entries = [{"split": name, **value} for name, value in given.items()]
    elif all(isinstance(value, int | float) for value in given.values()):
        entries = [{"metrics": dict(given)}]
    else:
        raise ValueError(
            "`results` must be an evaluation as `EvaluationResult.to_dict()` gives it, several by name, or metrics by "
            f"name; got the keys {', '.join(map(repr, given))}"
        )
    return [_evaluation(entry, str(run.get("dataset") or "unknown data set")) for entry in entries]


def save_record(folder: Path, run: Mapping[str, Any], results: Mapping[str, Any] | None) -> None:
    """Write what was given into the folder, so that its card can be made again wherever the folder goes."""
    files: tuple[tuple[str, Mapping[str, Any] | None], ...] = ((RUN_FILE, run), (RESULTS_FILE, results))
    for name, content in files:
        if content:
            with atomic_write(folder / name) as path:
                path.write_text(json.dumps(without_private_paths(content), indent=2, default=str) + "\n", "utf-8")


def read_model_facts(folder: Path) -> dict[str, Any]:
    """Read what the model's own files say about it.

    Args:
        folder: A folder as `save_pretrained` writes it.

    Returns:
        The configuration, the processor's configuration, and the number of `parameters`.

    Raises:
        FileNotFoundError: If there is no `config.json`.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json; a card describes a folder that `save_pretrained` wrote")
    return {
        "config": _read_mapping(folder / "config.json"),
        "processor": _read_mapping(folder / "processor_config.json"),
        "parameters": sum(map(_parameters, sorted(folder.glob("*.safetensors")))),
    }


def without_private_paths(value: Any) -> Any:
    """Cut absolute paths in nested values, and within texts, to their last part: cards go public."""
    if isinstance(value, dict):
        return {key: without_private_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_private_paths(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    return ABSOLUTE_FOLDER.sub("", value) if isinstance(value, str) else value


def _evaluation(entry: Mapping[str, Any], dataset: str) -> Evaluation:
    return Evaluation(
        dataset=without_private_paths(str(entry.get("dataset") or dataset)),
        split=entry.get("split"),
        metrics=dict(entry["metrics"]),
        by_kind={kind: dict(values) for kind, values in (entry.get("by_kind") or {}).items()},
        counts=dict(entry.get("counts") or {}),
        settings=dict(entry.get("settings") or {}),
    )


def _read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds a mapping; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
        else:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, found {type(content).__name__}")  # noqa: TRY004
    return content


def _parameters(weights: Path) -> int:
    """Count the numbers in a safetensors file by its header."""
    with safe_open(weights, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
