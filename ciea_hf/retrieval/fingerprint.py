"""A hash of what a model computes: its weights, configuration and prompts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

# What saving and loading change in a configuration without changing what the model computes.
_VOLATILE = {"_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype"}


def model_fingerprint(model: Any) -> str:
    """Hash the weights, configuration and prompts of a model.

    Args:
        model: A ``torch.nn.Module``, or any object with a string attribute ``fingerprint``.

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
            f"{type(model).__name__} is no torch module: to keep its embeddings on disk, give it a string attribute "
            "`fingerprint`"
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
        "pipeline": str(model) if config is None else None,
    }


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stable(item) for name, item in value.items() if name not in _VOLATILE}
    return value
