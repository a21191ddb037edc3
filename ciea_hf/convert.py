"""Conversion of checkpoints published by the authors of CIEA and MARVEL (`.pt`: `{"epoch", "model"}`)."""

from __future__ import annotations

import copy
import inspect
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedConfig

from ciea_hf.modeling import CIEAConfig, CIEAModel, CIEAProcessor

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import Tensor

    Config = PreTrainedConfig | dict[str, Any] | str | os.PathLike[str]

# Patterns of their names -> our names. The released code names the language model after its family.
RENAMED = (
    (r"^clip_model\.vision_model\.", "vision_model."),
    (r"^(t5|bart|bert|gpt2|gpt|text|language)_model\.", "text_model."),
    (r"^information_extract\.attention\.(q|k|v|out)_linear\.", r"extractor.\1_proj."),
    (r"^information_extract\.feed_forward\.0\.", "extractor.fc1."),
    (r"^information_extract\.feed_forward\.2\.", "extractor.fc2."),
    (r"^information_extract\.", "extractor."),
)
# Position ids and GPT-2's causal masks are buffers, not weights; CLIP's text side and projections are unused.
IGNORED = re.compile(
    r"\.position_ids$|\.attn\.(masked_)?bias$|^clip_model\.(text_model|text_projection|visual_projection|logit_scale)"
)


def convert_checkpoint(
    checkpoint: str | os.PathLike[str], vision_config: Config, text_config: Config, **config_overrides: Any
) -> CIEAModel:
    """Convert a checkpoint of CIEA, or of MARVEL, which has no extractor.

    The three image tokens are the last rows of the token table, in the order `<im_patch>`, `<im_start>`, `<im_end>`,
    unless `config_overrides` sets them.

    Args:
        checkpoint: The `.pt` file: `{"epoch": ..., "model": state_dict}` or a bare state dict. Only tensors are
            unpickled.
        vision_config: Configuration of the vision tower: a `PreTrainedConfig`, a dict, a folder or a Hub id.
        text_config: Configuration of the language model, likewise.
        **config_overrides: Arguments of [`CIEAConfig`].

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not such a checkpoint or its weights do not fit; missing, unexpected and misshapen
            keys are named.
    """
    unknown = config_overrides.keys() - set(inspect.signature(CIEAConfig.__init__).parameters)
    if unknown:
        raise ValueError(f"unknown setting(s) of the configuration: {', '.join(sorted(unknown))}")
    state: dict[str, Tensor] = {}
    for name, tensor in read_state_dict(checkpoint).items():
        plain_name = name.removeprefix("module.")  # DistributedDataParallel adds this prefix
        if not IGNORED.search(plain_name):
            state[_rename(plain_name)] = tensor
    table = next((name for name in TOKEN_TABLES if name in state), None)
    if table is None:
        raise ValueError(f"{checkpoint}: token table not found; expected one of {', '.join(TOKEN_TABLES)}")
    text = copy.deepcopy(_config(text_config, "text_config"))
    text.vocab_size = state[table].shape[0]
    last = text.vocab_size
    overrides: dict[str, Any] = {
        "use_extractor": any(name.startswith("extractor.") for name in state),
        "image_token_id": last - 3,
        "image_start_token_id": last - 2,
        "image_end_token_id": last - 1,
        **config_overrides,
    }
    model = CIEAModel(CIEAConfig(vision_config=_config(vision_config, "vision_config"), text_config=text, **overrides))
    _load(model, state, Path(checkpoint))
    model.train(mode=False)
    return model


def load_processor(model: CIEAModel, image_processor: str, tokenizer: str) -> CIEAProcessor:
    """Load the processor of a converted model.

    Args:
        model: Model returned by [`convert_checkpoint`].
        image_processor: Folder or Hub id, usually that of the vision tower.
        tokenizer: Folder or Hub id, usually that of the language model.

    Returns:
        The processor.

    Raises:
        ValueError: If its three image tokens are not the rows that the checkpoint trained.
    """
    processor = CIEAProcessor(
        AutoImageProcessor.from_pretrained(image_processor),
        AutoTokenizer.from_pretrained(tokenizer),
        image_seq_length=model.config.image_seq_length,
    )
    for name in ("image_token_id", "image_start_token_id", "image_end_token_id"):
        ours, theirs = getattr(processor, name), getattr(model.config, name)
        if ours != theirs:
            raise ValueError(
                f"{name} is {ours} in the tokenizer {tokenizer} but {theirs} in the checkpoint: use the tokenizer that "
                f"the checkpoint was trained with, or --set {name}={ours}"
            )
    return processor


TOKEN_TABLES = (
    "text_model.shared.weight",
    "text_model.embeddings.word_embeddings.weight",
    "text_model.wte.weight",
    "text_model.embed_tokens.weight",
)


def read_state_dict(checkpoint: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of a `.pt` file; only tensors are unpickled.

    Args:
        checkpoint: The file.

    Returns:
        Weights by their names in the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file contains other objects than tensors and plain values, or no weights.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint`: file {str(path)!r} not found")
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files cause errors of any class
        reason = (str(error).splitlines() or [""])[0]
        reason = reason if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__} {reason}"
        raise ValueError(f"{path}: not a checkpoint of tensors alone, so it is not loaded: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected {{'epoch': ..., 'model': weights by name}}; got {_describe(content)}")
    for name, tensor in state.items():
        problem = _problem(name, tensor)
        if problem:
            raise ValueError(f"{path}: {str(name)[:100]!r} {problem}")
    return state


def _check_archive(path: Path) -> None:
    """Check the checksums of a zip archive, which `torch.load` does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the entry {damaged!r} does not have its checksum")


def _problem(name: object, tensor: Tensor) -> str:
    """Return why a tensor cannot be a weight; empty if it can."""
    if not isinstance(name, str):
        return "is not the name of a weight"
    if tensor.is_sparse or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return "is sparse, quantised or without values"
    if IGNORED.search(name) or IGNORED.search(name.removeprefix("module.")):
        return ""
    if not tensor.is_floating_point():
        return f"must hold floating-point numbers; got {tensor.dtype}"
    if tensor.numel() and not bool(tensor.isfinite().all()):
        return "contains NaN or infinity"
    return ""


def _rename(name: str) -> str:
    for pattern, replacement in RENAMED:
        renamed = re.sub(pattern, replacement, name)
        if renamed != name:
            return renamed
    return name


def _load(model: CIEAModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy the weights into the model; mismatches raise an error that names them."""
    own = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(name for name in own if name not in state and name not in tied)
    unexpected = sorted(name for name in state if name not in own)
    misshapen = sorted(
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in state
        if name in own and state[name].shape != own[name].shape
    )
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(f"{label}: {', '.join(names)}" for label, names in problems.items() if names)
        raise ValueError(f"{path}: the weights do not fit the configurations. {listed}")
    model.load_state_dict(dict(state), strict=False)
    model.tie_weights()


def _config(value: Config, name: str) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    if isinstance(value, dict):
        if "model_type" not in value:
            raise ValueError(f"`{name}` must have the key 'model_type'; got {', '.join(map(repr, value))}")
        settings = dict(value)
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    config: PreTrainedConfig = AutoConfig.from_pretrained(value)
    return getattr(config, "vision_config", config) if name == "vision_config" else config


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(repr, list(content)[:5]))}"
    return type(content).__name__
