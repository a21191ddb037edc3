"""Systems of the Open Clip Art benchmark: with the paper's recipe, this package's recipe, and pretrained towers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.common.recipe_variants import CAPTION_ONLY, EXTRACTOR, RECIPE
from benchmarks.common.recipe_variants import VARIANTS as RECIPE_VARIANTS
from benchmarks.common.variants import NO_EXTRACTOR, NO_LOSS, Variant
from benchmarks.common.variants import VARIANTS as PAPER_VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FROZEN = ("--freeze", "vision,text")
TRAINED = ("--learning-rate", "2e-5", "--new-learning-rate", "1e-3")
# the patches are aligned with the words of a text encoder that does not change
ALIGNMENT = ("--align.freeze", "vision,text", "--align.max-steps", "400", "--extract-uncaptioned", "true")
_TITLES = {"caption_only": "caption only", "marvel": "MARVEL", "ciea": "CIEA"}


@dataclass(frozen=True)
class Setting:
    """Systems that share towers and training budget.

    Attributes:
        name: Name on the command line, and of the folder of the records.
        groups: Groups of the table, each a mapping from row title to variant.
        variants: Variants by name.
        steps: Training steps of the last stage.
    """

    name: str
    groups: Mapping[str, Mapping[str, str]]
    variants: Mapping[str, Variant]
    steps: int


def _miniature(name: str, group: str, known: Mapping[str, Variant]) -> Setting:
    variants = {system: replace(known[system], baseline="caption_only") for system in _TITLES}
    return Setting(name, {group: {title: system for system, title in _TITLES.items()}}, variants, 400)


def _pretrained() -> Setting:
    groups: dict[str, dict[str, str]] = {}
    variants = {}
    for text, options in (("frozen", FROZEN), ("trained", TRAINED)):
        arguments = {
            # a frozen text encoder has nothing to learn from captions
            "caption_only": (*CAPTION_ONLY, *options, *(("--max-steps", "1") if text == "frozen" else ())),
            "marvel": (*NO_EXTRACTOR, *NO_LOSS, *options),
            "ciea": (*EXTRACTOR, *options),
        }
        names = {}
        for system, title in _TITLES.items():
            names[title] = name = f"{system}_{text}"
            alone = system == "caption_only"
            variants[name] = Variant(
                name,
                arguments[system],
                content="caption" if alone else "full",
                baseline=f"caption_only_{text}",
                important=text == "frozen",
                preset=RECIPE,
                alignment=None if alone else ALIGNMENT,
                warm_up=False,
            )
        groups[f"pretrained towers, text encoder {text}"] = names
    return Setting("pretrained", groups, variants, 150)


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        _miniature("paper", "miniature towers, paper's recipe", PAPER_VARIANTS),
        _miniature("miniature", "miniature towers", RECIPE_VARIANTS),
        _pretrained(),
    )
}


def choose_settings(names: Iterable[str] | None) -> list[Setting]:
    """Return the settings with these names, all if None."""
    return [setting for name, setting in SETTINGS.items() if names is None or name in names]
