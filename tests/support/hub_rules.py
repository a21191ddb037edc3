"""Rules of the Hub for the metadata of model cards, from its documentation and its error messages.

The fields are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md; the patterns and the wording of
the errors come from public reports of rejected pushes. The rules share no code with the generation of the cards.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

LICENSES = frozenset((Path(__file__).parent / "files" / "hub_licenses.txt").read_text(encoding="utf-8").split())
PIPELINE_TAGS = (
    "feature-extraction", "sentence-similarity", "image-feature-extraction", "visual-document-retrieval",
    "image-text-to-text", "text-ranking", "zero-shot-image-classification",
)  # fmt: skip
BLOCK = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))")
REPOSITORY = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
DATASET_TYPE = re.compile(r"(?:[\w-]+/)?[\w.-]+")


def metadata_errors(card: str) -> list[str]:
    """List the errors that the Hub would report; empty if it accepts the card."""
    block = BLOCK.search(card)
    if block is None:
        return []  # the Hub only warns: "empty or missing yaml metadata in repo card"
    try:
        data = yaml.safe_load(block.group(2))
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(data, dict):
        return ['"metadata" must be of type object']
    errors = _string_errors(data) + _list_errors(data) + _id_errors(data)
    if data.get("license") is not None and data["license"] not in LICENSES:
        errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES))}]')
    if data.get("license") == "other" and not data.get("license_name"):
        errors.append('"license_name" is required')
    if "pipeline_tag" in data and data["pipeline_tag"] not in PIPELINE_TAGS:
        errors.append(f'"pipeline_tag" must be one of [{", ".join(sorted(PIPELINE_TAGS))}]')
    return errors + _model_index_errors(data.get("model-index", []))


def _string_errors(data: dict[str, Any]) -> list[str]:
    return [
        f'"{key}" must be a string'
        for key in ("license", "library_name", "pipeline_tag")
        if key in data and not isinstance(data[key], str)
    ]


def _list_errors(data: dict[str, Any]) -> list[str]:
    errors = []
    for key in ("tags", "datasets", "metrics"):
        if key in data and not isinstance(data[key], list):
            errors.append(f'"{key}" must be an array')
        elif key in data:
            errors += [
                f'"{key}[{i}]" must be a string' for i, item in enumerate(data[key]) if not isinstance(item, str)
            ]
    return errors


def _id_errors(data: dict[str, Any]) -> list[str]:
    errors = []
    base = data.get("base_model", [])
    for name, values, where in (
        ("base_model", base if isinstance(base, list) else [base], "a model id from https://hf.co/models"),
        ("datasets", data.get("datasets", []), "a dataset id from https://hf.co/datasets"),
    ):
        for i, value in enumerate(values if isinstance(values, list) else []):
            if value == "":
                errors.append(f'"{name}[{i}]" is not allowed to be empty')
            elif not isinstance(value, str) or not REPOSITORY.fullmatch(value):
                errors.append(f'"{name}[{i}]" with value "{value}" is not valid. If possible, use {where}.')
    languages = data.get("language", [])
    wrong = [
        language
        for language in (languages if isinstance(languages, list) else [languages])
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", str(language))
    ]
    errors += [f'"language" with value "{language}" is not valid. It must be an ISO 639 code' for language in wrong]
    return errors


def _model_index_errors(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for i, model in enumerate(index):
        where = f"model-index[{i}]"
        errors += _missing_keys(model, where, "name", "results")
        for j, result in enumerate(model.get("results", [])):
            errors += _result_errors(result, f"{where}.results[{j}]")
    return errors


def _result_errors(result: dict[str, Any], where: str) -> list[str]:
    errors = _missing_keys(result, where, "task", "dataset", "metrics")
    errors += _missing_keys(result.get("task", {}), f"{where}.task", "type")
    dataset = result.get("dataset", {})
    errors += _missing_keys(dataset, f"{where}.dataset", "type", "name")
    if not DATASET_TYPE.fullmatch(str(dataset.get("type", ""))):
        errors.append(
            f'"{where}.dataset.type" with value "{dataset.get("type")}" fails to match the required pattern: '
            "/^(?:[\\w-]+\\/)?[\\w-.]+$/"
        )
    errors += [
        f'"{where}.dataset.{key}" must be a string'
        for key in ("name", "config", "split", "revision")
        if key in dataset and not isinstance(dataset[key], str)
    ]
    for k, metric in enumerate(result.get("metrics", [])):
        errors += _missing_keys(metric, f"{where}.metrics[{k}]", "type", "value")
    return errors


def _missing_keys(mapping: dict[str, Any], where: str, *keys: str) -> list[str]:
    return [f'"{where}.{key}" is required' for key in keys if mapping.get(key) is None]


def error_list(errors: list[str]) -> dict[str, Any]:
    """Format errors as in the responses of the Hub."""
    return {"errors": [{"message": message} for message in errors], "warnings": []}
