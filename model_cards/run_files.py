"""Reads the contents of a model card: the record of a training run, its results, and the files of the model."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # huggingface_hub depends on it
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import safe_open

from ciea_hf.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping

BEST = "best"  # folder of the best model, inside the folder of a training stage
RUN_FILE = "run.json"
RESULTS_FILE = "eval_results.json"
CONFIGURATION_FILES = ("training_config.yaml", "training_config.yml", "training_config.json")
# The folders of an absolute path, POSIX or Windows, anywhere in a text. URLs such as https://... do not match.
ABSOLUTE_FOLDER = re.compile(r"(?<![\w/:.])(?:~?/(?:[^\s'\"/=,]+/)+|[A-Za-z]:[\\/](?:[^\s'\"\\/=,]+[\\/])*)")
RUN_KEYS = (
    "command", "config", "versions", "git_revision", "seed", "dataset", "datasets", "data_fingerprint", "base_model",
    "license", "language", "steps", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one evaluation.

    Attributes:
        dataset: Name of the data set, or its id on the Hub.
        split: Split of the data set, if known.
        metrics: Metric name to value over all queries.
        by_kind: Metric name to value, for each kind of relevant document.
        counts: Number of documents and queries.
        settings: Settings of the evaluation.
    """

    dataset: str
    split: str | None
    metrics: dict[str, float]
    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def collect_run(folder: Path, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Collect the record of a training run from the files in and above the folder, and from overrides.

    Args:
        folder: Folder of the model. Its `run.json` and `training_config.yaml` (or `.json`) are read; if the folder is
            named `best`, those of its parent, the folder of the run, are read first.
        overrides: Values by key, any of `RUN_KEYS`; these take precedence over the files.

    Returns:
        The record; unknown values are omitted, absolute paths are shortened to their last component. Empty lists stay:
        an empty `base_model` or `datasets` says that there is none on the Hub.

    Raises:
        ValueError: If a key is unknown, or a file cannot be read.
    """
    unknown = sorted(set(overrides or {}) - set(RUN_KEYS))
    if unknown:
        raise ValueError(f"`run` has unknown key(s) {', '.join(unknown)}; valid keys: {', '.join(RUN_KEYS)}")
    record: dict[str, Any] = {}
    for location in (folder.parent, folder) if folder.name == BEST else (folder,):
        record.update(_read_mapping(location / RUN_FILE))
        configurations = [location / name for name in CONFIGURATION_FILES if (location / name).is_file()]
        if configurations:
            record["config"] = _read_mapping(configurations[0])
    record.update(overrides or {})
    config = record.get("config") or {}
    for key in ("seed", "dataset"):
        if record.get(key) is None:
            record[key] = config.get(key)
    known = {key: record[key] for key in RUN_KEYS if record.get(key) not in (None, "", {})}
    return {key: without_private_paths(value) for key, value in known.items()}


def collect_results(folder: Path, results: Mapping[str, Any] | None, run: Mapping[str, Any]) -> list[Evaluation]:
    """Convert evaluation results to [`Evaluation`] objects.

    Args:
        folder: Folder of the model; its `eval_results.json` is read if `results` is None.
        results: Output of `EvaluationResult.to_dict()`, several outputs by name, or metrics by name.
        run: Record of the training run; its data set is used if the results do not name one.

    Returns:
        One entry for each evaluation.

    Raises:
        ValueError: If the results have an unsupported form.
    """
    if results is None:
        results = _read_mapping(folder / RESULTS_FILE)
    if not results:
        return []
    if "metrics" in results:
        entries = [dict(results)]
    elif all(isinstance(value, dict) and "metrics" in value for value in results.values()):
        entries = [{"split": name, **value} for name, value in results.items()]
    elif all(isinstance(value, int | float) for value in results.values()):
        entries = [{"metrics": dict(results)}]
    else:
        raise ValueError(
            "`results` must be the output of `EvaluationResult.to_dict()`, several outputs by name, or metrics by "
            f"name; got the keys {', '.join(map(repr, results))}"
        )
    return [_evaluation(entry, str(run.get("dataset") or "unknown data set")) for entry in entries]


def recorded_base_models(folder: Path) -> list[str]:
    """Return the Hub ids of the models that a model derives from.

    Args:
        folder: Folder of the model. Its record decides; without one, the origin of its towers in `config.json`.

    Raises:
        ValueError: If a file cannot be read.
    """
    record = collect_run(folder, None)
    return base_models(record, _read_mapping(folder / "config.json"))


def base_models(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the Hub ids of the base models: as recorded, else those of the two towers.

    The options of the run do not count: `--model a/b` was a local folder if the record does not say otherwise.

    Args:
        record: Record of the training run.
        config: Configuration of the model, in which a tower from a local folder has an absolute path.
    """
    recorded = record.get("base_model")
    if recorded is None:
        recorded = []
        for section in ("vision_config", "text_config"):
            tower = config.get(section)
            recorded.append(tower.get("_name_or_path") if isinstance(tower, dict) else None)
    names = recorded if isinstance(recorded, list) else [recorded]
    return [name for name in names if is_repository_id(name)]


def is_repository_id(value: Any) -> bool:
    """Return whether a value has the form of a repository's id on the Hub, `owner/name`."""
    if not isinstance(value, str) or value.count("/") != 1:
        return False
    try:
        validate_repo_id(value)
    except HFValidationError:
        return False
    return True


def save_record(folder: Path, run: Mapping[str, Any], results: Mapping[str, Any] | None) -> None:
    """Write `run.json` and `eval_results.json`, so that the card can be generated again.

    Args:
        folder: Folder of the model.
        run: Record of the training run; not written if empty.
        results: Results as for [`collect_results`]; not written if empty.
    """
    files: tuple[tuple[str, Mapping[str, Any] | None], ...] = ((RUN_FILE, run), (RESULTS_FILE, results))
    for name, content in files:
        if content:
            with atomic_write(folder / name) as path:
                path.write_text(json.dumps(without_private_paths(content), indent=2, default=str) + "\n", "utf-8")


def read_model_facts(folder: Path) -> dict[str, Any]:
    """Read the facts about a model from its files.

    Args:
        folder: Folder written by `save_pretrained`.

    Returns:
        The `config`, the configuration of the `processor`, and the number of `parameters`.

    Raises:
        FileNotFoundError: If there is no `config.json`.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder}: config.json not found; a model card needs a folder written by `save_pretrained`"
        )
    return {
        "config": _read_mapping(folder / "config.json"),
        "processor": _read_mapping(folder / "processor_config.json"),
        "parameters": sum(map(_count_parameters, sorted(folder.glob("*.safetensors")))),
    }


def without_private_paths(value: Any) -> Any:
    """Shorten absolute paths in nested values to their last component, because cards are published.

    Args:
        value: Any nested value; paths are found within strings too.

    Returns:
        The value with shortened paths.
    """
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
    """Read a JSON or YAML file that contains a mapping; empty if the file is missing."""
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
        raise ValueError(f"{path}: must contain a mapping; got {type(content).__name__}")  # noqa: TRY004
    return content


def _count_parameters(weights: Path) -> int:
    """Count the parameters in a safetensors file from its header."""
    with safe_open(weights, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
