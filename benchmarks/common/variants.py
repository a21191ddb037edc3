"""The variants of the ablation: what each one's training is told, and where it stands in the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ciea_hf.demo.run import SYSTEMS
from ciea_hf.training.arguments import config_as_dict, config_from_arguments
from ciea_hf.training.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_EXTRACTOR = ("--use-extractor", "false")
NO_LOSS = ("--lambda", "0")
PROJECTED = ("--complement-patches", "projected")
MASK = ("--query-reduction", "mask")
FAMILIES = {"bart": "BART", "bert": "BERT", "gpt2": "GPT-2"}

# what a run's place and pace decide, not what it computes
IGNORED_OPTIONS = frozenset(
    ("output_dir", "model", "resume", "seed", "stage", "stages", "all_stages", "trackers", "workers", "save_steps",
     "keep_checkpoints", "cache_vision_features")
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One system of the ablation.

    Attributes:
        name: Of its records and on the command line.
        arguments: What its training is told beside the preset.
        content: What it sees of a document when it is evaluated.
        family: Its language model.
        baseline: The variant that it is compared with.
        important: Whether its further seeds come before those of the others.
    """

    name: str
    arguments: tuple[str, ...] = ()
    content: str = "full"
    family: str = "t5"
    baseline: str = "marvel"
    important: bool = False

    def warm_up(self, steps: int | None = None) -> tuple[str, ...]:
        """Arguments of the warm-up that it starts from, which variants of one family share."""
        budget = () if steps is None else ("--max-steps", str(steps))
        tower = () if self.family == "t5" else ("--text-model", f"demo-{self.family}")
        return ("--stage", "warm_up", *tower, *budget)

    def training(self, steps: int) -> tuple[str, ...]:
        """Arguments of its training."""
        return ("--stage", "in_batch", "--max-steps", str(steps), *self.arguments)


def _of_the_demo(name: str) -> Variant:
    system = next(system for system in SYSTEMS if system.name == name)
    return Variant(name, system.arguments, system.content, important=True)


_ALL = (
    _of_the_demo("caption_only"),
    _of_the_demo("marvel"),
    Variant("extractor", NO_LOSS, important=True),
    Variant("complementary_loss", NO_EXTRACTOR, important=True),
    _of_the_demo("ciea"),
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

# Groups of the table: title of the row to variant. A variant may stand in several groups.
GROUPS: dict[str, dict[str, str]] = {
    "parts": {
        "caption only": "caption_only",
        "image only": "image_only",
        "MARVEL": "marvel",
        "+ extractor": "extractor",
        "+ L_comp": "complementary_loss",
        "CIEA (both)": "ciea",
    },
    "extractor's weights": {
        "complement": "ciea",
        "uniform": "uniform",
    },
    "form of L_comp": {
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


def choose(names: Sequence[str] | None) -> list[Variant]:
    """Choose variants by name, in the order of the work; all of them if None.

    Raises:
        ValueError: If there is no such variant.
    """
    unknown = [name for name in names or () if name not in VARIANTS]
    if unknown:
        raise ValueError(f"there is no variant {unknown[0]!r}; choose from {', '.join(VARIANTS)}")
    return [variant for variant in _ALL if names is None or variant.name in names]


def in_order(variants: Sequence[Variant], seeds: int) -> Iterator[tuple[Variant, int]]:
    """Order the work: the first seed of every variant, then the further seeds, important variants first."""
    yield from ((variant, 0) for variant in variants if seeds)
    for important in (True, False):
        for seed in range(1, seeds):
            yield from ((variant, seed) for variant in variants if variant.important is important)


def settings(variant: Variant, steps: int, warm_up_steps: int | None = None) -> dict[str, dict[str, Any]]:
    """Resolve what a variant's stages are told, whatever the seed.

    Returns:
        Stage to the values that bear on the result and differ from the training's defaults.
    """
    stages = {"warm_up": variant.warm_up(warm_up_steps), "in_batch": variant.training(steps)}
    return {stage: dict(_settings(stage, arguments)) for stage, arguments in stages.items()}


@lru_cache
def _settings(stage: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    usual = config_as_dict(TrainingConfig())
    mine = config_as_dict(config_from_arguments(["--preset", "demo", *arguments]).for_stage(stage))
    return {name: value for name, value in mine.items() if value != usual[name] and name not in IGNORED_OPTIONS}
