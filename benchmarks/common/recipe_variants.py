"""Variants of the recipe comparison: the recipe of this package, and what each of its parts contributes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.common.variants import FAMILIES, NO_EXTRACTOR, NO_LOSS, PRESET, Variant

RECIPE = "demo"  # the recipe of this package
EXTRACTOR = ("--use-extractor", "true")  # the stages before have none
CAPTION_ONLY = ("--content", "caption", *NO_EXTRACTOR)
WORDS = (
    "--align.contrast",
    "words",
    "--align.max-steps",
    "800",
    "--align.eval-steps",
    "200",
    "--align.max-grad-norm",
    "none",
)

# What each part of the recipe changes on its own in the paper's recipe, and what takes it out of the recipe.
ALONE: dict[str, tuple[str, ...]] = {
    "dropout": ("--dropout", "0", "--extractor-dropout", "0"),
    "reverse": ("--reverse-weight", "0.5"),
    "gate": ("--extractor-weights", "gate"),
    "uncaptioned": ("--extract-uncaptioned", "true"),
}
WITHOUT: dict[str, tuple[str, ...]] = {
    "dropout": ("--dropout", "0.1", "--extractor-dropout", "0.1"),
    "reverse": ("--reverse-weight", "0"),
    "gate": ("--extractor-weights", "complement"),
    "uncaptioned": ("--extract-uncaptioned", "false"),
}
TITLES = {
    "alignment": "alignment by words",
    "dropout": "no dropout",
    "reverse": "contrast in both directions",
    "gate": "gates",
    "uncaptioned": "extractor without captions",
}


def _new(name: str, arguments: tuple[str, ...] = (), extractor: bool = True, **fields: object) -> Variant:
    chosen = (*EXTRACTOR, *arguments) if extractor else arguments
    variant = Variant(name, chosen, baseline="ciea", preset=RECIPE, alignment=())
    return replace(variant, **fields)  # type: ignore[arg-type]


_ALL = (
    _new("caption_only", CAPTION_ONLY, False, content="caption", alignment=None, baseline="marvel", important=True),
    _new("marvel", (*NO_EXTRACTOR, *NO_LOSS), False, baseline="marvel", important=True),
    _new("complementary_loss", (), False, baseline="marvel", important=True),
    _new("ciea", baseline="marvel", important=True),
    _new("uniform", ("--extractor-weights", "uniform"), important=True),
    _new("without_alignment", alignment=None),
    *(_new(f"without_{part}", arguments) for part, arguments in WITHOUT.items()),
    _new("lambda_0", NO_LOSS),
    _new("lambda_0.1", ("--lambda", "0.1")),
    _new("lambda_1", ("--lambda", "1")),
    _new("caption_dropout", ("--caption-dropout", "0.2")),
    _new("image_queries", ("--image-queries", "0.3")),
    _new("hard_negatives", continues="ciea"),
    *(
        _new(f"marvel_{family}", (*NO_EXTRACTOR, *NO_LOSS), False, family=family, baseline=f"marvel_{family}")
        for family in FAMILIES
    ),
    *(_new(f"ciea_{family}", family=family, baseline=f"marvel_{family}") for family in FAMILIES),
    Variant("paper", baseline="ciea"),
    Variant("alone_alignment", baseline="paper", alignment=WORDS),
    *(Variant(f"alone_{part}", arguments, baseline="paper") for part, arguments in ALONE.items()),
)
VARIANTS = {variant.name: variant for variant in _ALL}

# Groups of the table, each a mapping from row title to variant.
GROUPS: dict[str, dict[str, str]] = {
    "systems": {
        "caption only": "caption_only",
        "MARVEL": "marvel",
        "MARVEL + L_comp": "complementary_loss",
        "CIEA": "ciea",
    },
    "weights": {"uniform instead of gates": "uniform", "complement weights instead of gates": "without_gate"},
    "left out": {TITLES[part]: f"without_{part}" for part in ("alignment", "dropout", "reverse", "uncaptioned")},
    "lambda (0.5)": {"0": "lambda_0", "0.1": "lambda_0.1", "1": "lambda_1"},
    "added": {
        "a fifth of captions dropped": "caption_dropout",
        "0.3 of queries are images": "image_queries",
        "200 steps with hard negatives": "hard_negatives",
    },
    "language model": {
        f"{title}, {system}": f"{system.lower()}_{family}"
        for family, title in FAMILIES.items()
        for system in ("MARVEL", "CIEA")
    },
    f"paper's recipe ({PRESET})": {"CIEA": "paper"} | {f"+ {TITLES[part]}": f"alone_{part}" for part in TITLES},
}
