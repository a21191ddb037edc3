"""Reading of the checkpoints that the authors of CIEA and MARVEL publish (`.pt`: `{"epoch", "model"}`)."""

from __future__ import annotations

import copy
import pickle
import re
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

# their name -> ours; the language model's comes first in a key and may be any of theirs
RENAMED = (
    (r"^clip_model\.vision_model\.", "vision_model."),
    (r"^(t5|bart|bert|gpt2|gpt|text|language)_model\.", "text_model."),
    (r"^information_extract\.attention\.(q|k|v|out)_linear\.", r"extractor.\1_proj."),
    (r"^information_extract\.feed_forward\.0\.", "extractor.fc1."),
    (r"^information_extract\.feed_forward\.2\.", "extractor.fc2."),
    (r"^information_extract\.", "extractor."),
)
# position ids and GPT-2's causal masks are no weights; CLIP's text side and its projections take no part in the model
IGNORED = re.compile(
    r"\.position_ids$|\.attn\.(masked_)?bias$|^clip_model\.(text_model|text_projection|visual_projection|logit_scale)"
)


def convert_checkpoint(
    checkpoint: str | os.PathLike[str], vision_config: Config, text_config: Config, **config_overrides: Any
) -> CIEAModel:
    """Read an authors' checkpoint of CIEA, or of MARVEL, which has no extractor.

    The three image tokens are the last rows of its token table, in the order `<im_patch>`, `<im_start>`, `<im_end>`,
    unless `config_overrides` says otherwise.

    Args:
        checkpoint: The `.pt` file, `{"epoch": ..., "model": state_dict}` or a bare state dict. Read without unpickling
            anything but tensors.
        vision_config: Configuration of the vision tower: a `PreTrainedConfig`, a dict, a folder or a Hub id.
        text_config: Configuration of the language model, likewise.
        **config_overrides: Arguments of [`CIEAConfig`].

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no such checkpoint, or its weights do not fit; missing, unexpected and misshapen keys
            are named.
    """
    weights = {  # written under DistributedDataParallel, names begin with "module."
        name.removeprefix("module."): tensor for name, tensor in read_state_dict(checkpoint).items()
    }
    state = {_rename(name): tensor for name, tensor in weights.items() if not IGNORED.search(name)}
    table = next((name for name in TOKEN_TABLES if name in state), None)
    if table is None:
        raise ValueError(f"{checkpoint}: no token table among the weights; expected one of {', '.join(TOKEN_TABLES)}")
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


def processor_of(model: CIEAModel, image_processor: str, tokenizer: str) -> CIEAProcessor:
    """Load the processor of a converted model.

    Args:
        model: As :func:`convert_checkpoint` gives it.
        image_processor: Folder or Hub id, most often that of the vision tower.
        tokenizer: Folder or Hub id, most often that of the language model.

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
                f"{name} is {ours} for the tokenizer {tokenizer} and {theirs} for the checkpoint: "
                f"the tokenizer is another one, or --set {name}={ours} is needed"
            )
    return processor


TOKEN_TABLES = (
    "text_model.shared.weight",
    "text_model.embeddings.word_embeddings.weight",
    "text_model.wte.weight",
    "text_model.embed_tokens.weight",
)


def read_state_dict(checkpoint: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of a `.pt` file, unpickling nothing but tensors.

    Args:
        checkpoint: The file.

    Returns:
        Weights by their names in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds anything but tensors and plain values, or no weights.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint`: there is no file {str(path)!r}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint that can be read safely (tensors only): {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected {{'epoch': ..., 'model': weights by name}}, found {_describe(content)}")
    return state


def _rename(name: str) -> str:
    for pattern, replacement in RENAMED:
        renamed = re.sub(pattern, replacement, name)
        if renamed != name:
            return renamed
    return name


def _load(model: CIEAModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy the weights into the model; refuse what does not fit, by name."""
    own = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(name for name in own if name not in state and name not in tied)
    unexpected = sorted(name for name in state if name not in own)
    misshapen = sorted(
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in state
        if name in own and state[name].shape != own[name].shape
    )
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
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
            raise ValueError(f"`{name}` needs the key 'model_type'; it has {', '.join(map(repr, value))}")
        settings = dict(value)
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    config: PreTrainedConfig = AutoConfig.from_pretrained(value)
    return getattr(config, "vision_config", config) if name == "vision_config" else config


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(repr, list(content)[:5]))}"
    return type(content).__name__
