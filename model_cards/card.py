"""Writes a model's card: metadata for the Hub, usage, training, results, limits and citation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ciea_hf.evaluation.report import HEADLINE, metric_title, metrics_table
from ciea_hf.model_cards.run_files import Evaluation, collect_results, collect_run, read_model_facts, save_record
from ciea_hf.utils import atomic_write, import_optional

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
CARD_FILE = "README.md"
MARKER = "<!-- Made by ciea-hf from the files of this folder; what is changed by hand is overwritten. -->"
TAGS = ("sentence-transformers", "sentence-similarity", "multimodal-retrieval", "dense-retrieval", "image-text", "ciea")
PIPELINE_TAG = "feature-extraction"


def write_model_card(
    folder: str | os.PathLike[str],
    *,
    run: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    license: str | None = None,  # noqa: A002 (the Hub's word for it)
) -> Path:
    """Write `README.md` into a model's folder, from the folder's own files and the record of its run.

    What is given here is kept in the folder (`run.json`, `eval_results.json`), so that the card can be made again after
    the folder was moved or published. What neither is given nor found is left out.

    Args:
        folder: A folder as `save_pretrained` writes it.
        run: The run's record, any of `command` (a text or a list of arguments), `config` (the resolved configuration),
            `versions` (by package), `git_revision`, `seed`, `dataset` (name or Hub id), `data_fingerprint`,
            `base_model` (a Hub id or several), `license`, `language`, `steps`, `seconds`.
        results: What `EvaluationResult.to_dict()` gives, several of those by name, or metrics by name.
        repo_id: Where the model is published, for the examples.
        license: The Hub's identifier of the weights' licence, such as `"apache-2.0"`.

    Returns:
        The card's path.

    Raises:
        FileNotFoundError: If the folder has no `config.json`.
        ValueError: If a key of `run` is unknown, or a file or `results` cannot be read.
    """
    place = Path(folder)
    given = {**(run or {}), **({} if license is None else {"license": license})}
    text = render_model_card(place, run=given, results=results, repo_id=repo_id)
    save_record(place, collect_run(place, given) if given else {}, results)
    with atomic_write(place / CARD_FILE) as path:
        path.write_text(text, encoding="utf-8")
    return place / CARD_FILE


def render_model_card(
    folder: str | os.PathLike[str],
    *,
    run: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
) -> str:
    """Return the card's text, and write nothing; arguments as for [`write_model_card`]."""
    import_optional("jinja2", extra="train")
    place = Path(folder)
    record = collect_run(place, run)
    facts = read_model_facts(place)
    evaluations = collect_results(place, results, record)
    extractor = bool(facts["config"].get("use_extractor", True))
    title = repo_id.split("/")[-1] if repo_id else ("CIEA" if extractor else "MARVEL")
    data = _metadata(title, record, facts, evaluations)
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        model_id=repo_id or "path/to/model",
        marker=MARKER,
        evaluations=[_shown(evaluation) for evaluation in evaluations],
        license_text=_license_text(data),
        **_model_values(facts),
        **_training_values(record),
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def is_generated(text: str) -> bool:
    """Whether a card was made here, and not by hand."""
    return MARKER in text


def is_hub_id(value: Any) -> bool:
    """Whether a value can be the id of a repository, `owner/name`, and is no folder here."""
    if not isinstance(value, str) or value.count("/") != 1 or Path(value).exists():
        return False
    try:
        validate_repo_id(value)
    except HFValidationError:
        return False
    return True


def _metadata(
    title: str, record: Mapping[str, Any], facts: Mapping[str, Any], evaluations: list[Evaluation]
) -> ModelCardData:
    base = _base_models(record, facts["config"])
    dataset = str(record.get("dataset"))
    return ModelCardData(
        language=record.get("language"),
        license=record.get("license") or ("unknown" if base else "apache-2.0"),
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        tags=list(TAGS),
        base_model=base or None,
        datasets=[dataset] if is_hub_id(dataset) else None,
        metrics=list(dict.fromkeys(name for evaluation in evaluations for name, _, _ in _headline(evaluation))) or None,
        model_name=title,
        eval_results=[result for evaluation in evaluations for result in _eval_results(evaluation)] or None,
    )


def _base_models(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Hub ids of what the model started from: given, or the run's starting point, or the towers' origins."""
    given = record.get("base_model")
    training = record.get("config") or {}
    towers = [(config.get(part) or {}).get("_name_or_path") for part in ("vision_config", "text_config")]
    for candidates in (
        given if isinstance(given, list) else [given],
        [training.get("model")],
        [training.get("vision_model"), training.get("text_model")],
        towers,
    ):
        found = [str(candidate) for candidate in candidates if is_hub_id(candidate)]
        if found:
            return found
    return []


def _headline(evaluation: Evaluation) -> list[tuple[str, str | None, float]]:
    """Metric, kind of query (`None` for all) and value of what goes into the metadata."""
    groups = [(None, evaluation.metrics), *evaluation.by_kind.items()]
    return [(name, kind, metrics[name]) for kind, metrics in groups for name in HEADLINE if name in metrics]


def _eval_results(evaluation: Evaluation) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type=re.sub(r"[^\w./-]+", "-", evaluation.dataset).strip("-/"),
            dataset_name=evaluation.dataset,
            dataset_split=evaluation.split,
            metric_type=name,
            metric_name=metric_title(name) + (f" ({kind} queries)" if kind else ""),
            metric_value=round(float(value), 4),
        )
        for name, kind, value in _headline(evaluation)
    ]


def _shown(evaluation: Evaluation) -> dict[str, str]:
    rows = {"all": evaluation.metrics, **evaluation.by_kind}
    notes = [
        *(f"{number:,} {name}" for name, number in evaluation.counts.items() if "/" not in name),
        *(f"{name}: {value}" for name, value in evaluation.settings.items()),
    ]
    return {
        "title": evaluation.dataset + (f", {evaluation.split}" if evaluation.split else ""),
        "table": metrics_table(
            {kind if "/" in kind else f"{kind}{_count(evaluation, kind)}": values for kind, values in rows.items()},
            label="queries",
        ),
        "notes": ", ".join(notes) + "." if notes else "",
    }


def _count(evaluation: Evaluation, kind: str) -> str:
    number = evaluation.counts.get("queries" if kind == "all" else f"queries/{kind}")
    return "" if number is None else f" ({number})"


def _license_text(data: ModelCardData) -> str:
    base = data.base_model or []
    weights = (
        f"The licence of the weights was not stated; they derive from {', '.join(base)}, whose terms apply."
        if data.license == "unknown"
        else f"The weights are under `{data.license}`."
    )
    return f"{weights} The code (`.py`) is under Apache-2.0. The training data have terms of their own."


def _model_values(facts: Mapping[str, Any]) -> dict[str, Any]:
    config, processor = facts["config"], facts["processor"]
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    image_processor = processor.get("image_processor") or {}
    size = image_processor.get("crop_size") or image_processor.get("size") or {}
    side = size.get("shortest_edge") or vision.get("image_size") or "the tower's"
    return {
        "vision_name": _link(vision.get("_name_or_path")),
        "text_name": _link(text.get("_name_or_path")),
        "parameters": facts["parameters"],
        "use_extractor": config.get("use_extractor", True),
        "vision_type": vision.get("model_type", "?"),
        "text_type": text.get("model_type", "?"),
        "width": next((text[key] for key in ("hidden_size", "d_model", "n_embd") if key in text), "?"),
        "patches": config.get("image_seq_length", "?"),
        "pooling": config.get("pooling", "?"),
        "max_text_length": processor.get("max_text_length", "?"),
        "image_size": f"{size['width']} x {size['height']}" if "width" in size and "height" in size else f"{side}",
    }


def _training_values(record: Mapping[str, Any]) -> dict[str, Any]:
    versions = ", ".join(f"{package} {version}" for package, version in (record.get("versions") or {}).items())
    seconds = record.get("seconds")
    facts = {
        "Data": record.get("dataset"),
        "Fingerprint of the data": _fingerprint(record.get("data_fingerprint")),
        "Seed": record.get("seed"),
        "Steps": record.get("steps"),
        "Duration": None if seconds is None else f"{seconds / 60:.1f} minutes",
        "Git revision": _code(record.get("git_revision")),
        "Versions": versions or None,
    }
    command = _command(record.get("command"))
    config = record.get("config")
    return {
        "facts": [(name, value) for name, value in facts.items() if value is not None],
        "command": command,
        "configuration": yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip() if config else None,
        "dataset": record.get("dataset"),
    }


def _command(command: Any) -> str | None:
    """The command line; one that ran the training script, whichever way, as it is run from a checkout."""
    if not isinstance(command, list) or not command:
        return command or None
    words = [str(word) for word in command]
    if words[0] in ("train.py", "training/train.py"):
        words[:1] = ["accelerate", "launch", "training/train.py"]
    return shlex.join(words)


def _fingerprint(value: Any) -> str | None:
    """One fingerprint, or one for each split."""
    if isinstance(value, dict):
        return ", ".join(f"{split} `{fingerprint}`" for split, fingerprint in value.items())
    return _code(value)


def _link(value: Any) -> str | None:
    return f"[{value}](https://huggingface.co/{value})" if is_hub_id(value) else None


def _code(value: Any) -> str | None:
    return None if value is None else f"`{value}`"
