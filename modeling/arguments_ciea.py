"""Arguments of a processor's call: flat, by modality or common to all, as in `ProcessorMixin`. Types of arguments."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from transformers.processing_utils import ImagesKwargs
from transformers.utils import logging

from .errors_ciea import place
from .inputs_ciea import check_text
from .validation_ciea import check_image_processor

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.get_logger(__name__)

TEXT_ARGUMENTS = ("max_length", "padding", "return_tensors")
FIXED_ARGUMENTS = {  # arguments that are accepted because they request what the processor always does
    "truncation": (True, "longest_first", "only_first"),
    "return_attention_mask": (True,),
    "add_special_tokens": (True,),
}
OTHER_MODALITIES = ("audio_kwargs", "videos_kwargs")  # sentence-transformers always passes these


def merge_arguments(
    image_processor: Any, defaults: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort the arguments of a call by what they concern. Unknown ones are ignored with a warning, as in transformers.

    Args:
        image_processor: Image processor, which knows its arguments.
        defaults: Arguments of texts, `None` where not given.
        given: Further arguments; `common_kwargs` give way to `text_kwargs` and `images_kwargs`.

    Returns:
        Arguments of texts, and arguments of images.

    Raises:
        ValueError: If an argument is given twice with different values, or an image size or normalisation is invalid.
        TypeError: If nested arguments are something else than a dict.
    """
    given = dict(given)
    common = given.pop("common_kwargs", None) or {}
    nested = {name: given.pop(name, None) or {} for name in ("text_kwargs", "images_kwargs")}
    for name, values in {"common_kwargs": common, **nested}.items():
        if not isinstance(values, dict):
            raise TypeError(f"`{name}` must be a dict; got {type(values).__name__}")
    for name in OTHER_MODALITIES:
        given.pop(name, None)
    of_images = set(ImagesKwargs.__annotations__) | set(
        getattr(getattr(image_processor, "valid_kwargs", None), "__annotations__", ())
    )
    flat = {**given, **{name: value for name, value in defaults.items() if value is not None}}
    for modality, values in nested.items():
        for name in values.keys() & flat.keys():
            if values[name] != flat[name]:
                raise ValueError(f"`{name}` is given twice: {flat[name]!r}, and {values[name]!r} in `{modality}`")
    text = {**defaults, **{name: value for name, value in common.items() if name in TEXT_ARGUMENTS}}
    text |= {name: value for name, value in {**flat, **nested["text_kwargs"]}.items() if name in TEXT_ARGUMENTS}
    images = {name: value for name, value in {**common, **flat}.items() if name in of_images} | nested["images_kwargs"]
    check_image_processor(images)
    _warn({**common, **nested["text_kwargs"], **flat}, of_images)
    return text, images


def _warn(given: dict[str, Any], of_images: set[str]) -> None:
    ignored = []
    for name, value in given.items():
        if name not in TEXT_ARGUMENTS and name not in of_images and value not in FIXED_ARGUMENTS.get(name, ()):
            ignored.append(name)
    if ignored:
        logger.warning_once(f"CIEAProcessor ignores unknown argument(s) {', '.join(sorted(ignored))}")


def text_argument(name: str, value: Any) -> str:
    """Return an argument that must be a text; raises `TypeError` if it is something else."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a str; got {value!r}")
    with place(f"`{name}`"):
        return check_text(value)


def prompt_argument(prompt_name: str | None, prompt: str | None, prompts: Mapping[str, str]) -> str:
    """Return the prompt that is given as a text or, failing that, by its name; `ValueError` for an unknown name."""
    if prompt is not None or prompt_name is None:
        return text_argument("prompt", prompt or "")
    if prompt_name not in prompts:
        known = ", ".join(map(repr, prompts)) or "none"
        raise ValueError(f"`prompt_name` must be one of the configured prompts ({known}); got {prompt_name!r}")
    return str(prompts[prompt_name])


def integer_argument(name: str, value: Any) -> int:
    """Return an argument that must be an integer; raises `TypeError` if it is something else."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer; got {value!r}")
    return int(value)
