"""Settings of a sentence-transformers folder that is used as the language model of CIEA."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils.hub import cached_file

if TYPE_CHECKING:
    import os

    from transformers import PreTrainedModel

POOLING_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}  # of sentence-transformers -> of CIEA
POOLING_FLAGS = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "lasttoken"}  # their older form
SUPPORTED = ("Transformer", "Pooling", "Normalize")
NO_LIMIT = 1e6  # tokenizers without a limit have a huge one


@dataclass(frozen=True)
class TextEncoderSettings:
    """How a text encoder turns states into embeddings.

    Attributes:
        config: Arguments of [`CIEAConfig`]: `pooling`, `normalize_embeddings` and `prompts`.
        max_length: Maximum number of tokens of a text, or `None` for the default.
    """

    config: dict[str, Any] = field(default_factory=dict)
    max_length: int | None = None


def text_encoder_settings(text: str | os.PathLike[str]) -> TextEncoderSettings:
    """Read pooling, normalisation, maximum length and prompts of a sentence-transformers model.

    Args:
        text: Folder or Hub id of a language model.

    Returns:
        The settings; empty for a model without `modules.json`.

    Raises:
        ValueError: If the model has modules or a pooling that CIEA does not support.
    """
    modules = _read(text, "modules.json")
    if modules is None:
        return TextEncoderSettings()
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    unsupported = [kind for kind in kinds if kind not in SUPPORTED]
    if unsupported or kinds[:2] != ["Transformer", "Pooling"]:
        raise ValueError(
            f"{text} consists of the modules {', '.join(kinds)}; supported are Transformer, Pooling and, optionally, "
            "Normalize"
        )
    folder = modules[0]["path"]
    settings = _read(text, f"{folder}/sentence_bert_config.json" if folder else "sentence_bert_config.json") or {}
    config = {
        "pooling": _pooling(text, _read(text, f"{modules[1]['path']}/config.json") or {}),
        "normalize_embeddings": "Normalize" in kinds,
        "prompts": _prompts(_read(text, "config_sentence_transformers.json") or {}),
    }
    # sentence-transformers 6 saves the limit with the tokenizer alone; its predecessors wrote a file of their own
    name = "tokenizer_config.json"
    limit = settings.get("max_seq_length") or (_read(text, f"{folder}/{name}" if folder else name) or {}).get(
        "model_max_length"
    )
    return TextEncoderSettings(config, int(limit) if limit is not None and limit < NO_LIMIT else None)


def positions_of(text_model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a language model has positions for; `None` if it has no such limit."""
    positions: int | None = getattr(text_model.config, "max_position_embeddings", None)
    table = getattr(getattr(text_model, "embeddings", None), "position_embeddings", None)
    padding: int | None = getattr(table, "padding_idx", None)  # RoBERTa and MPNet count positions from padding_idx + 1
    return positions if positions is None or padding is None else positions - padding - 1


def _pooling(text: str | os.PathLike[str], settings: dict[str, Any]) -> str:
    modes = settings.get("pooling_mode")
    if modes is None:
        flags = [name.removeprefix("pooling_mode_") for name, value in settings.items() if value is True]
        modes = [POOLING_FLAGS.get(name, name) for name in flags if name != "include_prompt"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ValueError(f"{text}: pooling must be one of {', '.join(POOLING_MODES)}; got {', '.join(modes) or 'none'}")
    return POOLING_MODES[modes[0]]


def _prompts(settings: dict[str, Any]) -> dict[str, str]:
    """Return the prompts; the default prompt also serves queries and documents that have none of their own."""
    prompts = {name: prompt or "" for name, prompt in (settings.get("prompts") or {}).items()}
    default = prompts.get(settings.get("default_prompt_name") or "", "")
    return {"query": default, "document": default} | prompts


def _read(text: str | os.PathLike[str], name: str) -> Any:
    """Read a JSON file of a folder or Hub repository; `None` if it does not exist."""
    found = cached_file(str(text), name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
