"""What a training run is told: one flat configuration, with values of their own for single stages."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_type_hints

from ciea_hf.training.values import convert, lora_options

STAGES = ("warm_up", "align", "in_batch", "mine", "hard_negatives")

# What a stage needs unless it is told otherwise: warming up reads no picture; alignment (method of MARVEL) leaves the
# language model as it is but for its token table, and reads captions shorter.
STAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    "warm_up": {"content": "caption", "freeze": ["vision", "projector", "extractor"]},
    "align": {"freeze": ["vision", "text_body"], "max_length": 64},
}

# What can be kept as it is; `text_body` is the language model without its token table.
FREEZABLE = ("vision", "text", "text_body", "projector", "extractor", "logit_scale")

# What holds for the run and cannot differ by stage.
RUN_LEVEL_OPTIONS = (
    "stage", "all_stages", "stages", "dataset", "dataset_format", "train_split", "dev_split", "mixed_precision",
    "output_dir", "resume", "trackers",
)  # fmt: skip

MINIMUMS = dict.fromkeys(
    (
        "batch_size", "gradient_accumulation_steps", "gradient_cache_chunk", "max_length", "max_steps", "epochs",
        "eval_steps", "eval_batch_size", "eval_documents", "early_stopping", "save_steps", "keep_checkpoints",
        "log_steps", "mine_depth",
    ),
    1,
) | dict.fromkeys(
    (
        "image_negatives", "text_negatives", "mine_images", "mine_texts", "workers", "warmup_steps",
        "complement_weight", "weight_decay", "relative_margin",
    ),
    0,
)  # fmt: skip

# Names that users write and Python cannot: `lambda` is a keyword.
ALIASES = {"lambda": "complement_weight"}


@dataclass(frozen=True)
class TrainingConfig:
    """Every value of a run; presets are YAML files of these, and each is an argument of the command line.

    The help texts of the fields are the documentation of the single values (``training/train.py --help``).
    """

    # what is trained
    stage: Annotated[str, "warm_up, align, in_batch, mine, hard_negatives, several separated by commas, or all"] = (
        "in_batch"
    )
    all_stages: Annotated[tuple[str, ...], "what `stage: all` runs, in order"] = (
        "align",
        "in_batch",
        "mine",
        "hard_negatives",
    )
    stages: Annotated[dict[str, dict[str, Any]], "values for single stages, by stage; also as --STAGE.OPTION"] = field(
        default_factory=lambda: {stage: dict(values) for stage, values in STAGE_DEFAULTS.items()}
    )
    model: Annotated[str | None, "start from this: a checkpoint's folder or Hub id, or an authors' .pt file"] = None
    vision_model: Annotated[str | None, "vision backbone, a folder or Hub id, where no `model` is given"] = None
    text_model: Annotated[str | None, "language model, a folder or Hub id, where no `model` is given"] = None
    use_extractor: Annotated[bool | None, "false switches the extractor off (MARVEL); none keeps the model's own"] = (
        None
    )
    extractor_weights: Annotated[
        Literal["complement", "uniform"] | None,
        "what the extractor weighs patches by, 'uniform' being nothing (an ablation); none keeps the model's own",
    ] = None
    freeze: Annotated[
        tuple[str, ...], "parts kept as they are: vision, text, text_body, projector, extractor, logit_scale"
    ] = ("vision",)
    lora: Annotated[str | None, "train the language model through LoRA, e.g. 'r=16,alpha=32,dropout=0.05'"] = None
    # data
    dataset: Annotated[str, "folder or Hub id of the retrieval data set"] = ""
    dataset_format: Annotated[str, "format of the data set, as `load_retrieval_dataset` knows it"] = "auto"
    train_split: Annotated[str, "split that is trained on"] = "train"
    dev_split: Annotated[str | None, "split that is ranked during training; none for no evaluation"] = "dev"
    content: Annotated[
        Literal["full", "caption", "image"],
        "part of each document, as in evaluation: 'caption' drops images, 'image' drops the captions of images",
    ] = "full"
    negatives: Annotated[
        str | None, "mined negatives that stage `hard_negatives` reads; by default those of stage `mine`"
    ] = None
    image_negatives: Annotated[int, "hard negatives with an image for each query, in stage `hard_negatives`"] = 1
    text_negatives: Annotated[int, "hard negatives without an image for each query, in stage `hard_negatives`"] = 1
    max_length: Annotated[int, "tokens of a query, a text or a caption"] = 128
    on_broken_image: Annotated[
        Literal["fail", "skip", "caption"], "images that cannot be decoded: fail, skip the document, or use its caption"
    ] = "skip"
    workers: Annotated[int, "processes that decode images and tokenise, per training process"] = 0
    cache_vision_features: Annotated[str | None, "folder for the frozen tower's patch features, or 'auto'"] = None
    # objective
    complement_weight: Annotated[float, "weight of the complementary loss; 0 is without"] = 0.1
    complement_patches: Annotated[Literal["extracted", "projected"], "patches that L_comp embeds"] = "extracted"
    query_reduction: Annotated[Literal["delete", "mask"], "what happens to a query's tokens that the caption has"] = (
        "delete"
    )
    false_negative_margin: Annotated[
        float | None, "leave out negatives whose cosine is at least the positive's minus this margin"
    ] = None
    # optimisation
    batch_size: Annotated[int, "queries of a step over all processes, for which all documents are negatives"] = 64
    gradient_accumulation_steps: Annotated[int, "batches summed up before a step; negatives stay within a batch"] = 1
    gradient_cache_chunk: Annotated[int | None, "embed in chunks of so many rows, each replayed for its gradients"] = (
        None
    )
    max_steps: Annotated[int | None, "optimiser steps; by default `epochs`"] = None
    epochs: Annotated[int, "passes over the training queries, where `max_steps` is not given"] = 40
    learning_rate: Annotated[float, "peak learning rate of pretrained parts"] = 5e-6
    new_learning_rate: Annotated[float | None, "of the projector and the extractor; by default `learning_rate`"] = None
    warmup_steps: Annotated[int, "steps of linear warm-up before the cosine to 0"] = 0
    weight_decay: Annotated[float, "of matrices"] = 0.2
    adam_betas: Annotated[tuple[float, float], "AdamW's betas"] = (0.9, 0.98)
    adam_epsilon: Annotated[float, "AdamW's epsilon"] = 1e-6
    max_grad_norm: Annotated[float | None, "clip the gradient's norm to this"] = None
    mixed_precision: Annotated[Literal["no", "bf16", "fp16"] | None, "by default what `accelerate launch` says"] = None
    compile: Annotated[bool, "run the model through torch.compile"] = False
    gradient_checkpointing: Annotated[bool, "recompute the language model's activations in the backward pass"] = False
    # mining
    mine_depth: Annotated[
        int, "best documents of the whole corpus that are looked at for each query, positives aside"
    ] = 100
    mine_window: Annotated[tuple[int, int], "ranks, from 0, that negatives are drawn from"] = (0, 100)
    mine_images: Annotated[int, "negatives with an image that are kept for each query"] = 10
    mine_texts: Annotated[int, "negatives without an image that are kept for each query"] = 10
    relative_margin: Annotated[
        float | None, "drop mined documents scoring above the positive's score times (1 - this)"
    ] = None
    max_score: Annotated[float | None, "drop mined documents scoring above this"] = None
    # the run
    output_dir: Annotated[str, "where everything is written, a folder for each stage"] = "output"
    seed: Annotated[int, "of weights, order and dropout"] = 0
    eval_steps: Annotated[int, "steps between evaluations on the dev split"] = 500
    eval_batch_size: Annotated[int, "inputs of one forward pass of the evaluation"] = 128
    eval_documents: Annotated[int | None, "rank so many dev documents at most: the relevant ones and a sample"] = None
    early_stopping: Annotated[int | None, "stop after so many evaluations without a better dev score"] = 10
    save_steps: Annotated[int, "steps between checkpoints"] = 500
    keep_checkpoints: Annotated[int, "checkpoints kept; older ones are removed"] = 2
    log_steps: Annotated[int, "steps between lines of the loss log"] = 10
    resume: Annotated[bool, "go on from the last checkpoint in `output_dir`; finished stages are left as they are"] = (
        False
    )
    push_to_hub: Annotated[str | None, "publish each stage's best model in this repository on the Hub"] = None
    hub_private: Annotated[bool, "make that repository private, where it is new"] = False
    trackers: Annotated[tuple[str, ...], "Accelerate's trackers; 'auto' is tensorboard where it is installed"] = (
        "auto",
    )

    def __post_init__(self) -> None:
        _check_stages(self)
        for name, least in MINIMUMS.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` must be at least {least}; got {value}")
        for name in ("learning_rate", "new_learning_rate", "max_grad_norm", "adam_epsilon"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be above 0; got {value}")
        unknown = [part for part in self.freeze if part not in FREEZABLE]
        if unknown:
            raise ValueError(f"`freeze` knows {', '.join(FREEZABLE)}; got {', '.join(unknown)}")
        if self.lora:
            lora_options(self.lora)

    @property
    def stage_names(self) -> list[str]:
        """The stages to run, in order."""
        return list(self.all_stages) if self.stage == "all" else [name.strip() for name in self.stage.split(",")]

    def for_stage(self, stage: str) -> TrainingConfig:
        """Return the configuration of one stage: its own values laid over the common ones."""
        return updated(dataclasses.replace(self, stages={}, stage=stage), self.stages.get(stage, {}))


def option_help() -> dict[str, str]:
    """Every option with its help text."""
    hints = get_type_hints(TrainingConfig, include_extras=True)
    return {option.name: get_args(hints[option.name])[1] for option in dataclasses.fields(TrainingConfig)}


def updated(config: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
    """Lay values over a configuration.

    Args:
        config: The configuration.
        values: Option to value; a value that is a string is read as on the command line.

    Returns:
        The new configuration.

    Raises:
        ValueError: If an option is unknown or a value is not one of its choices.
        TypeError: If a value is of the wrong type.
    """
    values = {canonical_name(name): value for name, value in values.items()}
    hints = get_type_hints(TrainingConfig)
    if "stages" in values:
        own = _convert_stages("stages", values.pop("stages"))
        merged = {stage: {**config.stages.get(stage, {}), **own.get(stage, {})} for stage in {**config.stages, **own}}
        config = dataclasses.replace(config, stages=merged)
    return dataclasses.replace(config, **{name: convert(name, hints[name], value) for name, value in values.items()})


def canonical_name(name: str, known: Iterable[str] | None = None) -> str:
    """Bring an option's name into the form of the field, or say which ones there are."""
    known = list(option_help() if known is None else known)
    plain = name.replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown option {name!r}.{hint} Valid options: {', '.join(known)}")
    return plain


def _convert_stages(name: str, value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must map stages to their values; got {value!r}")
    for stage, values in value.items():
        if not isinstance(values or {}, Mapping):
            raise TypeError(f"`{name}`: {stage!r} must map options to their values; got {values!r}")
    return {
        canonical_name(stage, STAGES): {canonical_name(option): setting for option, setting in (values or {}).items()}
        for stage, values in value.items()
    }


def _check_stages(config: TrainingConfig) -> None:
    for stage in [*config.stage_names, *config.stages]:
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}; choose from {', '.join(STAGES)} or 'all'")
    for stage, values in config.stages.items():
        for name in values:
            if canonical_name(name) in RUN_LEVEL_OPTIONS:
                raise ValueError(f"`{name}` holds for the whole run, so stage {stage!r} can have no value of its own")
