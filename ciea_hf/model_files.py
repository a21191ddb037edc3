"""Checks of a model's folder before it is loaded: files that can be read, and no code from elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ciea_hf.modeling.errors_ciea import place
from ciea_hf.modeling.validation_ciea import check_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LISTS = ("modules.json",)  # JSON files of a model that are lists, not objects


def check_model_folder(folder: Path) -> None:
    """Check that the files of a model's folder can be read; a folder that does not exist is not checked.

    Raises:
        OSError: If a file of weights cannot be read; safetensors would report it as missing.
        ValueError: If a file is not a JSON object or list, or names code or kernels from elsewhere; the message names
            the file.
    """
    for file in folder.glob("*.safetensors") if folder.is_dir() else []:
        if file.is_file():
            file.open("rb").close()
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not valid JSON: {error}") from error
        if not isinstance(content, dict) and file.name not in LISTS:
            raise ValueError(f"{file} must hold a JSON object; got {str(content)[:80]}")
        if file.name == "config.json":
            for kernel in kernels_from_hub(content):
                raise ValueError(f"{file}: `attn_implementation` {kernel!r} would fetch code from the Hub")
        if file.name == "modules.json":
            _check_modules(file, content)
        if isinstance(content, dict) and isinstance(content.get("prompts"), dict):
            with place(str(file)):
                check_prompts(content["prompts"])


def _check_modules(file: Path, content: Any) -> None:
    """Check the list of modules of sentence-transformers, each of which has a folder with its settings."""
    for module in content if isinstance(content, list) else [content]:
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise ValueError(f"{file} must be a list of objects with 'type' and 'path'; got {str(module)[:80]}")
        if not (file.parent / module["path"]).is_dir():
            raise ValueError(f"{file} names the folder {module['path']!r}, which is missing")


def kernels_from_hub(content: Any) -> Iterator[str]:
    """Find implementations of attention that transformers would fetch from the Hub.

    Args:
        content: Content of a `config.json`.
    """
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in ("attn_implementation", "_attn_implementation"):
                yield from kernels_from_hub(value)
                continue
            for implementation in value.values() if isinstance(value, dict) else [value]:
                if "/" in str(implementation):
                    yield str(implementation)
