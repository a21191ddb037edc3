"""Fingerprint of a model: a hash of its weights and of everything that affects its embeddings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedModel

# Settings that saving and loading change although the model computes the same.
_VOLATILE = {"_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype"}


def model_fingerprint(model: Any) -> str:
    """Hash the weights, configuration and prompts of a model, and how it preprocesses, pools and truncates.

    Args:
        model: A `torch.nn.Module`, or any object with a string attribute `fingerprint`.

    Returns:
        32 hexadecimal digits; equal for a model and its reloaded copy.

    Raises:
        TypeError: If the model has neither weights nor a fingerprint.
    """
    own = getattr(model, "fingerprint", None)
    if isinstance(own, str):
        return own
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            "`model` must be a torch module or have a string attribute `fingerprint`, which identifies its embeddings "
            f"on disk; got {type(model).__name__}"
        )
    digest = hashlib.sha256(json.dumps(_settings(model), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(data.numpy()))
    return digest.hexdigest()[:32]


def _settings(model: torch.nn.Module) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    return {
        "config": _stable(settings),
        "prompts": getattr(model, "prompts", None),
        "processor": _processor_settings(model),
        # a pipeline of sentence-transformers, whose pooling is not in the language model's configuration
        "pipeline": None if isinstance(model, PreTrainedModel) else str(model),
        "cut": [getattr(model, name, None) for name in ("max_seq_length", "truncate_dim")],
    }


def _processor_settings(model: torch.nn.Module) -> Any:
    """Return the settings of a CIEA model's processor; None for a model without one."""
    try:
        processor: Any = getattr(model, "processor", None)
    except (OSError, ValueError):  # never set, or not in the folder that the model was read from
        return None
    if not hasattr(processor, "to_dict"):
        return None
    words = json.dumps(processor.tokenizer.get_vocab(), sort_keys=True).encode()
    return {"settings": _stable(processor.to_dict()), "words": hashlib.sha256(words).hexdigest()}


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stable(item) for name, item in value.items() if name not in _VOLATILE}
    return value
