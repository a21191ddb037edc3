"""Loading of the model that a stage starts from, and preparation for training."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ciea_hf.loading import load_dataset, refuse_random_weights, without_report
from ciea_hf.training.run.optim import freeze, set_dropout, train_token_rows
from ciea_hf.training.values import lora_options
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)

DEMO = "demo"


def load_model(config: TrainingConfig, previous: Path | None, work: Path) -> CIEAModel:
    """Load the model that a stage starts from.

    Args:
        config: Configuration of the stage.
        previous: Model of the previous stage, which takes precedence over the configuration's.
        work: Folder for intermediate files, such as the demo's backbones.

    Returns:
        The model in float32, with its processor.

    Raises:
        FileNotFoundError: If the path of a model does not exist.
        ValueError: If the configuration names neither a model nor two backbones, or the model lacks weights.
    """
    from ciea_hf.modeling.configuration_ciea import CIEAConfig
    from ciea_hf.modeling.modeling_ciea import CIEAModel

    torch.manual_seed(config.seed)
    if previous is None:
        _check_folders(config)
    start = str(previous) if previous is not None else config.model
    overrides = {}
    for name in ("use_extractor", "extractor_weights", "extract_uncaptioned"):
        if getattr(config, name) is not None:
            overrides[name] = getattr(config, name)
    if start is not None and Path(start).suffix == ".pt":
        model = _from_authors(Path(start), config, overrides)
    elif start is not None:
        with without_report():
            model = CIEAModel.from_pretrained(start, dtype=torch.float32, ignore_mismatched_sizes=True, **overrides)
        saved = CIEAConfig.from_pretrained(start)
        changed = any(getattr(saved, name) != value for name, value in overrides.items())
        refuse_random_weights(start, model, new=("extractor.",) if changed else ())
        if not model.config.use_extractor and config.use_extractor is None:
            logger.warning("%s has no extractor (MARVEL); set `use_extractor: true` to add a new one", start)
    elif config.vision_model and config.text_model:
        vision, text = _backbones(config, work)
        model = CIEAModel.from_vision_text_pretrained(vision, text, **overrides)
    else:
        raise ValueError("set `model`, or `vision_model` and `text_model`")
    if "text" not in config.freeze:  # a frozen language model keeps its embeddings, of long texts, too
        model.processor.max_text_length = config.max_length
    return model


def _check_folders(config: TrainingConfig) -> None:
    """Check that paths exist; a name of another form is looked for on the Hub.

    Raises:
        FileNotFoundError: If one does not; the message names the option.
    """
    for name in ("model", "vision_model", "text_model"):
        value = getattr(config, name)
        if value is None or Path(value).exists():
            continue
        if Path(value).is_absolute() or value.startswith((".", "~")) or value.count("/") > 1 or value.endswith(".pt"):
            raise FileNotFoundError(f"`{name}`: {value} not found")


def prepare_model(
    model: CIEAModel, config: TrainingConfig, mixed_precision: str = "no", sharded: bool = False
) -> CIEAModel:
    """Freeze parts, and set up adapters, activation checkpointing and compilation.

    Args:
        model: Model.
        config: Configuration of the stage.
        mixed_precision: Precision of the engine; a warning is logged for T5 in fp16, which overflows.
        sharded: Whether the engine shards weights. Scalars cannot be sharded, so the logit scale becomes a vector.
    """
    if sharded:
        model.logit_scale = nn.Parameter(model.logit_scale.detach().reshape(1))
    freeze(model, config.freeze)
    if "text" in config.freeze and not config.aligns_words:  # the marks of images are new to the language model
        names = ("image_start_token_id", "image_end_token_id", "image_token_id")
        train_token_rows(model, [getattr(model.config, name) for name in names])
    if config.dropout is not None:
        set_dropout(model.text_model, config.dropout)
    if config.extractor_dropout is not None and model.extractor is not None:
        set_dropout(model.extractor, config.extractor_dropout)
    if config.lora and not {"text", "text_body"} & set(config.freeze):
        _add_lora(model, config.lora)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if config.compile:
        model.text_model.compile(dynamic=True)
    if mixed_precision == "fp16" and model.config.text_config.model_type in ("t5", "mt5", "umt5"):
        logger.warning("T5 was pretrained in bf16 and overflows in fp16; use bf16 to avoid losses that are not finite")
    return model


def plain_weights(model: CIEAModel, gathered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the gathered weights of an [`Embedder`] to those of its model."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    weights = {name.removeprefix("model."): tensor for name, tensor in gathered.items()}
    weights = {name: tensor for name, tensor in weights.items() if name not in tied}
    weights["logit_scale"] = weights["logit_scale"].reshape(())
    return weights


def saved_model(model: CIEAModel) -> CIEAModel:
    """Return the model to save: a copy with merged adapters, or the model itself if it has none."""
    if not hasattr(model.text_model, "merge_and_unload"):
        return model
    merged = copy.copy(model)
    merged._modules = dict(model._modules)
    merged.text_model = copy.deepcopy(model.text_model).merge_and_unload()
    return merged


def _from_authors(path: Path, config: TrainingConfig, overrides: dict[str, Any]) -> CIEAModel:
    from ciea_hf.convert import convert_checkpoint, load_processor

    if not (config.vision_model and config.text_model):
        raise ValueError(f"{path} contains weights only: set its backbones, `vision_model` and `text_model`")
    model = convert_checkpoint(path, config.vision_model, config.text_model)
    model.processor = load_processor(model, config.vision_model, config.text_model)
    changed = any(getattr(model.config, name) != value for name, value in overrides.items())
    return _reconfigured(model, overrides) if changed else model


def _reconfigured(model: CIEAModel, overrides: dict[str, Any]) -> CIEAModel:
    """Add a new extractor, remove the extractor, or change its weights, keeping all other parameters."""
    config = copy.deepcopy(model.config)
    config.update(overrides)
    other = type(model)(config)
    other.load_state_dict(model.state_dict(), strict=False)
    other.processor = model.processor
    return other


def _backbones(config: TrainingConfig, work: Path) -> tuple[str, str]:
    """Return folders or ids of the backbones, resolving the demo's packaged tower and language model."""
    vision, text = str(config.vision_model), str(config.text_model)
    if vision == DEMO:
        from ciea_hf.miniature.vision import tower_folder

        vision = str(tower_folder())
    if text.split("-")[0] == DEMO:  # demo, or a family such as demo-bert
        from ciea_hf.miniature.text import build_text_tower, training_texts

        text = str(work / "text_model")
        family = str(config.text_model).partition("-")[2] or "t5"
        dataset = load_dataset(config.dataset, config.train_split, config.dataset_format)
        build_text_tower(text, training_texts(dataset), config.seed, family)
    return vision, text


def _add_lora(model: CIEAModel, text: str) -> None:
    """Add low-rank adapters to the language model, whose other weights are then not trained."""
    peft = import_optional("peft", extra="train")
    options = lora_options(text)
    rank = int(options.get("r", 16))
    settings = peft.LoraConfig(
        r=rank, lora_alpha=options.get("alpha", 2 * rank), lora_dropout=options.get("dropout", 0.05)
    )
    model.text_model = peft.get_peft_model(model.text_model, settings)
