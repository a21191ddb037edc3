"""Configuration of a training run: one flat dataclass, with values for single stages laid over it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_type_hints

from ciea_hf.training.option import Option, canonical_name, check_stages, check_together
from ciea_hf.training.values import convert, shown

STAGES = ("warm_up", "align", "in_batch", "mine", "hard_negatives")

# Values that a stage needs by default: the warm-up reads texts only; the alignment (MARVEL's visual pretraining) trains
# the token table but not the rest of the language model, and truncates captions earlier.
STAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    "warm_up": {"content": "caption", "freeze": ["vision", "projector", "extractor"]},
    "align": {"freeze": ["vision", "text_body"], "max_length": 64},
}

# Parts that can be frozen; `text_body` is the language model without its token table.
FREEZABLE = ("vision", "text", "text_body", "projector", "extractor", "logit_scale")

STAGE, MODEL, DATA, LOSS, OPTIMISER = "stages", "model", "data", "losses", "optimisation"
MINING, RUN = "mining (stage `mine`)", "run and evaluation"


@dataclass(frozen=True)
class TrainingConfig:
    """All values of a run. Presets are YAML files of these, and each is an option of the command line.

    `training/train.py --help` documents the values.
    """

    stage: Annotated[
        str, Option(STAGE, f"stages to run: {', '.join(STAGES)}, several separated by commas, or all", per_stage=False)
    ] = "in_batch"
    all_stages: Annotated[tuple[str, ...], Option(STAGE, "stages that `--stage all` runs", per_stage=False)] = (
        "align", "in_batch", "mine", "hard_negatives",
    )  # fmt: skip
    stages: Annotated[
        dict[str, dict[str, Any]], Option(STAGE, "values of single stages; use --STAGE.OPTION instead", per_stage=False)
    ] = field(default_factory=lambda: {stage: dict(values) for stage, values in STAGE_DEFAULTS.items()})

    model: Annotated[
        str | None, Option(MODEL, "checkpoint to start from: folder, Hub id, or a released `.pt` checkpoint")
    ] = None
    vision_model: Annotated[str | None, Option(MODEL, "vision tower, folder or Hub id, if `model` is not given")] = None
    text_model: Annotated[str | None, Option(MODEL, "language model, folder or Hub id, if `model` is not given")] = None
    use_extractor: Annotated[
        bool | None,
        Option(MODEL, "whether to use the extractor; without it the model is MARVEL; none keeps the model's"),
    ] = None
    extractor_weights: Annotated[
        Literal["complement", "gate", "uniform"] | None,
        Option(MODEL, "role of the complement weights: the paper's, a gate, or no weights; none keeps the model's"),
    ] = None
    extract_uncaptioned: Annotated[
        bool | None,
        Option(MODEL, "whether images without a caption pass through the extractor; none keeps the model's"),
    ] = None
    dropout: Annotated[
        float | None,
        Option(MODEL, "dropout of the language model in training; none keeps the model's", minimum=0, below=1),
    ] = None
    extractor_dropout: Annotated[
        float | None, Option(MODEL, "dropout of the extractor in training; none keeps the model's", minimum=0, below=1)
    ] = None
    freeze: Annotated[
        tuple[str, ...], Option(MODEL, f"parts that are not trained, separated by commas: {', '.join(FREEZABLE)}")
    ] = ("vision",)
    lora: Annotated[
        str | None, Option(MODEL, "train the language model with LoRA, for example 'r=16,alpha=32,dropout=0.05'")
    ] = None

    dataset: Annotated[str, Option(DATA, "data set: folder, Hub id, or 'demo'", per_stage=False)] = ""
    dataset_format: Annotated[
        str, Option(DATA, "format of the data set, see `ciea data convert --help`", per_stage=False)
    ] = "auto"
    train_split: Annotated[str, Option(DATA, "split to train on", per_stage=False)] = "train"
    dev_split: Annotated[
        str | None, Option(DATA, "split to evaluate on during training; none disables the evaluation", per_stage=False)
    ] = "dev"
    content: Annotated[
        Literal["full", "caption", "image"],
        Option(DATA, "content of documents: 'caption' drops all images, 'image' drops the captions of images"),
    ] = "full"
    negatives: Annotated[
        str | None, Option(DATA, "mined negatives for stage `hard_negatives`; those of stage `mine` by default")
    ] = None
    image_negatives: Annotated[int, Option(DATA, "hard negatives with an image per query", minimum=0)] = 1
    text_negatives: Annotated[int, Option(DATA, "hard negatives without an image per query", minimum=0)] = 1
    max_length: Annotated[
        int, Option(DATA, "maximum number of tokens of a query, text or caption", minimum=1, maximum=1_000_000)
    ] = 128
    on_broken_image: Annotated[
        Literal["fail", "skip", "caption"],
        Option(DATA, "undecodable images: fail, skip the document, or use its caption alone"),
    ] = "skip"
    workers: Annotated[int, Option(DATA, "data loading workers per training process", minimum=0, maximum=256)] = 0
    cache_vision_features: Annotated[
        str | None, Option(DATA, "folder for the patch features of a frozen vision tower, or 'auto'")
    ] = None

    complement_weight: Annotated[
        float, Option(LOSS, "lambda, the weight of the complementary loss; 0 disables it", minimum=0, maximum=10_000)
    ] = 0.1
    complement_patches: Annotated[
        Literal["extracted", "projected"],
        Option(LOSS, "patches of the image-only embeddings in the complementary loss"),
    ] = "extracted"
    query_reduction: Annotated[
        Literal["delete", "mask"], Option(LOSS, "delete or mask query tokens that occur in the caption")
    ] = "delete"
    false_negative_margin: Annotated[
        float | None,
        Option(
            LOSS, "ignore negatives whose cosine is at least the positive's minus this margin", minimum=-2, maximum=2
        ),
    ] = None

    contrast: Annotated[
        Literal["embeddings", "words"],
        Option(LOSS, "stage `align`: contrast embeddings (MARVEL), or patches and words without the language model"),
    ] = "embeddings"
    word_scale: Annotated[
        float, Option(LOSS, "factor of the scores with `--align.contrast words`", above=0, maximum=10_000)
    ] = 30.0
    word_learning_rate: Annotated[
        float,
        Option(
            LOSS, "learning rate with `--align.contrast words`, relative to each parameter's scale", above=0, maximum=10
        ),
    ] = 0.1
    reverse_weight: Annotated[
        float,
        Option(
            LOSS, "weight of the contrast of each document with all queries; 0 disables it", minimum=0, maximum=10_000
        ),
    ] = 0.0
    caption_dropout: Annotated[
        float, Option(LOSS, "probability that an image of a training document loses its caption", minimum=0, below=1)
    ] = 0.0
    image_queries: Annotated[
        float, Option(LOSS, "probability that a part of the image replaces a query", minimum=0, below=1)
    ] = 0.0

    batch_size: Annotated[int, Option(OPTIMISER, "queries per batch over all processes", minimum=1)] = 64
    gradient_accumulation_steps: Annotated[
        int, Option(OPTIMISER, "batches per step; each batch has its own negatives", minimum=1)
    ] = 1
    gradient_cache_chunk: Annotated[int | None, Option(OPTIMISER, "GradCache chunk size in rows", minimum=1)] = None
    max_steps: Annotated[int | None, Option(OPTIMISER, "optimiser steps; `epochs` by default", minimum=1)] = None
    epochs: Annotated[int, Option(OPTIMISER, "epochs, if `max_steps` is not given", minimum=1)] = 40
    learning_rate: Annotated[float, Option(OPTIMISER, "peak learning rate of pretrained parts", above=0, maximum=1)] = (
        5e-6
    )
    new_learning_rate: Annotated[
        float | None,
        Option(
            OPTIMISER, "peak learning rate of projector and extractor; `learning_rate` by default", above=0, maximum=1
        ),
    ] = None
    warmup_steps: Annotated[int, Option(OPTIMISER, "steps of linear warm-up before the cosine decay", minimum=0)] = 0
    weight_decay: Annotated[float, Option(OPTIMISER, "weight decay of matrices", minimum=0, maximum=10)] = 0.2
    adam_betas: Annotated[
        tuple[float, float], Option(OPTIMISER, "betas of AdamW, separated by a comma", minimum=0, below=1)
    ] = (0.9, 0.98)
    adam_epsilon: Annotated[float, Option(OPTIMISER, "epsilon of AdamW", minimum=1e-30, maximum=1)] = 1e-6
    max_grad_norm: Annotated[float | None, Option(OPTIMISER, "maximum norm of the gradient", above=0)] = None
    mixed_precision: Annotated[
        Literal["no", "bf16", "fp16"] | None,
        Option(OPTIMISER, "mixed precision; that of `accelerate launch` by default", per_stage=False),
    ] = None
    compile: Annotated[bool, Option(OPTIMISER, "compile the language model with torch.compile")] = False
    gradient_checkpointing: Annotated[bool, Option(OPTIMISER, "recompute activations in the backward pass")] = False

    mine_depth: Annotated[int, Option(MINING, "best documents considered per query, without positives", minimum=1)] = (
        100
    )
    mine_window: Annotated[tuple[int, int], Option(MINING, "rank range START,END (END exclusive) to draw from")] = (
        0,
        100,
    )
    mine_images: Annotated[int, Option(MINING, "negatives with an image kept per query", minimum=0)] = 10
    mine_texts: Annotated[int, Option(MINING, "negatives without an image kept per query", minimum=0)] = 10
    relative_margin: Annotated[
        float | None,
        Option(MINING, "drop documents scoring above the positive's score times (1 - this)", minimum=0, maximum=2),
    ] = None
    max_score: Annotated[
        float | None, Option(MINING, "drop documents whose cosine is above this", minimum=-1, maximum=1)
    ] = None

    output_dir: Annotated[str, Option(RUN, "output folder, with a folder per stage", per_stage=False)] = "output"
    seed: Annotated[int, Option(RUN, "random seed", minimum=0)] = 0
    eval_steps: Annotated[int, Option(RUN, "steps between evaluations on the dev split", minimum=1)] = 500
    eval_batch_size: Annotated[int, Option(RUN, "inputs per forward pass of the evaluation", minimum=1)] = 128
    eval_documents: Annotated[int | None, Option(RUN, "maximum number of dev documents to rank", minimum=1)] = None
    early_stopping: Annotated[
        int | None, Option(RUN, "evaluations without improvement before training stops", minimum=1)
    ] = 10
    save_steps: Annotated[int, Option(RUN, "steps between checkpoints", minimum=1)] = 500
    keep_checkpoints: Annotated[int, Option(RUN, "number of checkpoints to keep", minimum=1)] = 2
    log_steps: Annotated[int, Option(RUN, "steps between entries of the loss log", minimum=1)] = 10
    resume: Annotated[
        bool, Option(RUN, "continue from the last checkpoint in `output_dir`; skip finished stages", per_stage=False)
    ] = False
    push_to_hub: Annotated[str | None, Option(RUN, "Hub repository that receives each stage's best model")] = None
    hub_private: Annotated[bool, Option(RUN, "create that repository as private")] = False
    trackers: Annotated[
        tuple[str, ...],
        Option(RUN, "Accelerate trackers; 'auto' is tensorboard if installed, or none", per_stage=False),
    ] = ("auto",)

    def __post_init__(self) -> None:
        for name, stages in (("stage", self.stage_names), ("all_stages", self.all_stages)):
            check_stages(name, stages, STAGES)
        for stage, values in self.stages.items():
            check_stages("stages", [stage], STAGES)
            fixed = [name for name in values if not options()[canonical_name(name, options())].per_stage]
            if fixed:
                raise ValueError(f"`{fixed[0]}` cannot be set per stage; got a value for stage {stage!r}")
        for name, option in options().items():
            option.check(name, getattr(self, name))
        check_together(vars(self), FREEZABLE)
        if self.stages or len(self.stage_names) > 1:
            for stage in dict.fromkeys([*self.stage_names, *self.stages]):
                self.for_stage(stage)

    @property
    def stage_names(self) -> list[str]:
        """Stages to run, in order."""
        return list(self.all_stages) if self.stage == "all" else [name.strip() for name in self.stage.split(",")]

    @property
    def aligns_words(self) -> bool:
        """Whether this is the configuration of a word alignment."""
        return self.stage == "align" and self.contrast == "words"

    def for_stage(self, stage: str) -> TrainingConfig:
        """Return the configuration of one stage: its own values laid over the common ones."""
        try:
            return updated(self, {**self.stages.get(stage, {}), "stage": stage}, stages={})
        except (ValueError, TypeError) as error:
            raise type(error)(f"stage {stage}: {error}") from error


@functools.cache
def options() -> dict[str, Option]:
    """Return every option of a configuration by name."""
    hints = get_type_hints(TrainingConfig, include_extras=True)
    return {entry.name: get_args(hints[entry.name])[1] for entry in dataclasses.fields(TrainingConfig)}


@functools.cache
def option_types() -> dict[str, Any]:
    """Return the type of every option by name."""
    return get_type_hints(TrainingConfig)


def updated(
    config: TrainingConfig, values: Mapping[str, Any], stages: dict[str, dict[str, Any]] | None = None
) -> TrainingConfig:
    """Lay values over a configuration.

    Args:
        config: Configuration.
        values: Values by option; a string is parsed as on the command line.
        stages: Values of single stages in place of the configuration's, before those in `values` are laid over them.

    Returns:
        The new configuration.

    Raises:
        ValueError: If an option is unknown or a value is not one of its choices.
        TypeError: If a value has the wrong type.
    """
    values = {canonical_name(name, options()): value for name, value in values.items()}
    hints = option_types()
    merged = config.stages if stages is None else stages
    if "stages" in values:
        own = _convert_stages("stages", values.pop("stages"))
        merged = {stage: {**merged.get(stage, {}), **own.get(stage, {})} for stage in {**merged, **own}}
    converted = {name: convert(name, hints[name], value) for name, value in values.items()}
    return dataclasses.replace(config, stages=merged, **converted)


def _convert_stages(name: str, value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must map stages to their values; got {shown(value)}")
    converted: dict[str, dict[str, Any]] = {}
    for stage, values in value.items():
        if not isinstance(values or {}, Mapping):
            raise TypeError(f"`{name}`: {shown(stage)} must map options to their values; got {shown(values)}")
        own = {canonical_name(option, options()): setting for option, setting in (values or {}).items()}
        converted[canonical_name(stage, STAGES)] = own
    return converted
