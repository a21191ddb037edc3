"""Variants of the ablation: their training arguments and their rows in the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ciea_hf.demo.run import SYSTEMS
from ciea_hf.training.arguments import config_as_dict, config_from_arguments
from ciea_hf.training.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PRESET = "demo_paper"  # the paper's recipe
NO_EXTRACTOR = ("--use-extractor", "false")
NO_LOSS = ("--lambda", "0")
PROJECTED = ("--complement-patches", "projected")
MASK = ("--query-reduction", "mask")
FAMILIES = {"bart": "BART", "bert": "BERT", "gpt2": "GPT-2"}

# These options decide where and how fast a training runs, but not what it computes. Records do not contain them, so
# that runs from different machines can be combined.
IGNORED_OPTIONS = frozenset(
    ("output_dir", "model", "resume", "seed", "stage", "stages", "all_stages", "trackers", "workers", "save_steps",
     "keep_checkpoints", "cache_vision_features")
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One system of the ablation.

    Attributes:
        name: Name in records and on the command line.
        arguments: Training arguments in addition to the preset.
        content: Content of documents in the evaluation.
        family: Family of the language model.
        baseline: Name of the variant that this one is compared with.
        important: Whether further seeds of this variant run before those of the other variants.
        preset: Preset of the training.
        alignment: Arguments of the alignment of patches and words after the warm-up; None trains without it.
        warm_up: Whether the language model is first trained on texts; a pretrained one needs no warm-up.
        continues: Name of the variant whose in-batch training this one continues with mined hard negatives, or None.
        hard_negative_steps: Steps of that continuation.
    """

    name: str
    arguments: tuple[str, ...] = ()
    content: str = "full"
    family: str = "t5"
    baseline: str = "marvel"
    important: bool = False
    preset: str = PRESET
    alignment: tuple[str, ...] | None = None
    warm_up: bool = True
    continues: str | None = None
    hard_negative_steps: int = 200

    def stages(self, steps: int, warm_up_steps: int | None = None) -> dict[str, tuple[str, ...]]:
        """Return the arguments of each stage. All variants of a family share the stages before the last one.

        Args:
            steps: Training steps of the last stage.
            warm_up_steps: Steps of the warm-up; those of the preset if None.

        Returns:
            Arguments by stage, in the order of the training.
        """
        budget = () if warm_up_steps is None else ("--max-steps", str(warm_up_steps))
        text_model = () if self.family == "t5" else ("--text-model", f"demo-{self.family}")
        stages = {"warm_up": ("--stage", "warm_up", *text_model, *budget)} if self.warm_up else {}
        if self.alignment is not None:
            stages["align"] = ("--stage", "align", "--use-extractor", "false", *self.alignment)
        stages["in_batch"] = ("--stage", "in_batch", "--max-steps", str(steps), *self.arguments)
        if self.continues is not None:
            budget = ("--hard_negatives.max-steps", str(self.hard_negative_steps))
            stages["hard_negatives"] = ("--stage", "mine,hard_negatives", *budget, *self.arguments)
        return stages


def _demo_variant(name: str) -> Variant:
    system = next(system for system in SYSTEMS if system.name == name)
    arguments = () if name == "ciea" else system.arguments
    return Variant(name, arguments, system.content, important=True)


_ALL = (
    _demo_variant("caption_only"),
    _demo_variant("marvel"),
    Variant("extractor", NO_LOSS, important=True),
    Variant("complementary_loss", NO_EXTRACTOR, important=True),
    _demo_variant("ciea"),
    Variant("lambda_0.1", ("--lambda", "0.1"), important=True),
    Variant("projected", PROJECTED, important=True),
    Variant("mask", MASK, important=True),
    Variant("uniform", ("--extractor-weights", "uniform")),
    Variant("image_only", ("--content", "image"), "image"),
    Variant("projected_mask", (*PROJECTED, *MASK)),
    Variant("lambda_0.05", ("--lambda", "0.05")),
    Variant("lambda_1", ("--lambda", "1")),
    *(Variant(f"ciea_{family}", family=family, baseline=f"marvel_{family}") for family in FAMILIES),
    *(
        Variant(f"marvel_{family}", (*NO_EXTRACTOR, *NO_LOSS), family=family, baseline=f"marvel_{family}")
        for family in FAMILIES
    ),
)
VARIANTS = {variant.name: variant for variant in _ALL}

# Groups of the table, each a mapping from row title to variant. A variant may occur in several groups.
GROUPS: dict[str, dict[str, str]] = {
    "components": {
        "caption only": "caption_only",
        "image only": "image_only",
        "MARVEL": "marvel",
        "+ extractor": "extractor",
        "+ L_comp": "complementary_loss",
        "CIEA (both)": "ciea",
    },
    "extractor weights": {
        "complement": "ciea",
        "uniform": "uniform",
    },
    "variant of L_comp": {
        "extracted, delete": "ciea",
        "extracted, mask": "mask",
        "projected, delete": "projected",
        "projected, mask": "projected_mask",
    },
    "lambda": {
        "0": "extractor",
        "0.05": "lambda_0.05",
        "0.1": "lambda_0.1",
        "0.5": "ciea",
        "1": "lambda_1",
    },
    "language model": {"T5, MARVEL": "marvel", "T5, CIEA": "ciea"}
    | {
        f"{title}, {system}": f"{system.lower()}_{family}"
        for family, title in FAMILIES.items()
        for system in ("MARVEL", "CIEA")
    },
}


def select_variants(names: Sequence[str] | None, variants: Mapping[str, Variant] = VARIANTS) -> list[Variant]:
    """Select variants by name.

    Args:
        names: Names of variants; None selects all.
        variants: The variants to select from.

    Returns:
        The variants, in the order in which they are trained.

    Raises:
        ValueError: If a name is unknown.
    """
    unknown = [name for name in names or () if name not in variants]
    if unknown:
        raise ValueError(f"unknown variant {unknown[0]!r}; choose from {', '.join(variants)}")
    return [variant for variant in variants.values() if names is None or variant.name in names]


def training_order(variants: Sequence[Variant], seeds: int) -> Iterator[tuple[Variant, int]]:
    """Yield variants and seeds: the first seed of every variant, then further seeds, important variants first."""
    yield from ((variant, 0) for variant in variants if seeds)
    for important in (True, False):
        for seed in range(1, seeds):
            yield from ((variant, seed) for variant in variants if variant.important is important)


def stage_overrides(variant: Variant, steps: int, warm_up_steps: int | None = None) -> dict[str, dict[str, Any]]:
    """Collect the options of a variant's stages that affect the result and differ from the training's defaults.

    Args:
        variant: The variant.
        steps: Training steps after the warm-up.
        warm_up_steps: Steps of the warm-up; those of the preset if None.

    Returns:
        Options and their values by stage. They are the same for all seeds.
    """
    stages = variant.stages(steps, warm_up_steps)
    return {stage: dict(_overrides(stage, arguments, variant.preset)) for stage, arguments in stages.items()}


@lru_cache
def _overrides(stage: str, arguments: tuple[str, ...], preset: str) -> dict[str, Any]:
    defaults = config_as_dict(TrainingConfig())
    options = config_as_dict(config_from_arguments(["--preset", preset, *arguments]).for_stage(stage))
    return {name: value for name, value in options.items() if value != defaults[name] and name not in IGNORED_OPTIONS}
