"""Documentation and limits of single options, and rules that concern several of them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.training.values import check_finite, check_window, lora_options, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ALIASES = {"lambda": "complement_weight"}  # `lambda`, as the paper calls it, is a keyword in Python

LARGEST_INTEGER = 2**31 - 1  # larger numbers overflow in torch, numpy or the tokenizers


class Option(NamedTuple):
    """Documentation and limits of one value of a configuration.

    Attributes:
        group: Topic under which `train.py --help` lists the option.
        help: Help text.
        minimum: Smallest valid value.
        above: Exclusive lower limit.
        maximum: Largest valid value.
        below: Exclusive upper limit.
        per_stage: Whether stages may have a value of their own.
    """

    group: str
    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    per_stage: bool = True

    def check(self, name: str, value: Any) -> None:
        """Check a value against the limits; each item of a tuple has the same limits.

        Raises:
            ValueError: If a number is not finite or outside the limits.
        """
        check_finite(name, value)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if self.minimum is not None and number < self.minimum:
                raise ValueError(f"`{name}` must be at least {self.minimum}; got {shown(value)}")
            if self.above is not None and number <= self.above:
                raise ValueError(f"`{name}` must be above {self.above}; got {shown(value)}")
            if self.below is not None and number >= self.below:
                raise ValueError(f"`{name}` must be below {self.below}; got {shown(value)}")
            maximum = self.maximum
            if maximum is None and isinstance(number, int):
                maximum = LARGEST_INTEGER
            if maximum is not None and number > maximum:
                raise ValueError(f"`{name}` must be at most {maximum}; got {shown(value)}")


def canonical_name(name: str, known: Iterable[str]) -> str:
    """Return the field name of an option, or of a stage, as written by a user.

    Args:
        name: Name with dashes or underscores, or an alias.
        known: Valid names.

    Raises:
        ValueError: If the name is unknown; the message lists the valid ones.
    """
    known = list(known)
    plain = str(name).replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown option {shown(name)}.{hint} Valid options: {', '.join(known)}")
    return plain


def check_stages(name: str, stages: Sequence[str], choices: Sequence[str]) -> None:
    """Check a list of stages.

    Raises:
        ValueError: If it is empty, or a stage is unknown or named twice.
    """
    for stage in stages:
        if stage not in choices:
            also = " or all" if name == "stage" else ""
            raise ValueError(f"`{name}` must be one of {', '.join(choices)}{also}; got {shown(stage)}")
    if not stages or len(set(stages)) < len(stages):
        raise ValueError(f"`{name}` must name at least one stage, and each once; got {', '.join(stages) or 'none'}")


def check_together(values: Mapping[str, Any], freezable: Sequence[str]) -> None:
    """Check what concerns the form of single options, and several options of one stage.

    Args:
        values: Values by option.
        freezable: Valid values of `freeze`.

    Raises:
        ValueError: If an option is invalid.
    """
    unknown = [part for part in values["freeze"] if part not in freezable]
    if unknown:
        raise ValueError(f"`freeze` must be a subset of {', '.join(freezable)}; got {shown(', '.join(unknown))}")
    if values["lora"]:
        lora_options(values["lora"])
    if not values["output_dir"].strip():
        raise ValueError("`output_dir` must be a folder; got ''")
    check_window("mine_window", values["mine_window"], "mine_depth", values["mine_depth"])
    if values["stage"] == "mine" and not values["mine_images"] and not values["mine_texts"]:
        raise ValueError("`mine_images` and `mine_texts` are both 0: stage `mine` would keep no negative")
    if values["stage"] == "hard_negatives" and not values["image_negatives"] and not values["text_negatives"]:
        raise ValueError(
            "`image_negatives` and `text_negatives` are both 0: stage `hard_negatives` would train without any"
        )
    if values["push_to_hub"] is not None:
        _check_repository(values["push_to_hub"])


def _check_repository(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"`push_to_hub` must be the id of a repository, such as owner/name; got {shown(name)}"
        ) from error
