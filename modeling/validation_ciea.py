"""Limits on what a model's files may request: sizes that no tower uses and files outside the folder are rejected."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from .errors_ciea import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_IMAGE_SIDE = 2048  # pixels; current towers use 224 to 1024
MAX_IMAGE_PATCHES = 65_536  # patches of 8 x 8 pixels in an image of that side
MAX_SIZES = {  # pattern of a name -> limit of the value
    r"^(num_.*layers|n_layer|num_hidden_layers|.*_layers)$": 1000,
    r"^(d_model|d_ff|d_kv|n_embd|n_inner|.*hidden_size|intermediate_size|.*_ffn_dim|projection_dim)$": 200_000,
    r"^(num_.*heads|n_head|.*attention_heads)$": 10_000,
    r"^vocab_size$": 10_000_000,
    r"^(max_position_embeddings|n_positions)$": 10_000_000,
}
DIVISORS = r"^(patch_size|image_size|num_channels|num_.*heads|n_head|.*attention_heads)$"  # at least 1
MAX_PROMPT = 10_000  # characters; no model reads as many
SIZES = ("size", "crop_size", "pad_size", "max_image_size")
BOOLEANS = ("use_extractor", "extract_uncaptioned", "normalize_embeddings")
INTEGERS = {  # fields of a configuration -> least value
    "extractor_num_heads": 1, "extractor_intermediate_size": 1, "image_seq_length": 1, "vision_feature_layer": -1000,
    "pooling_decoder_start_token_id": 0, "image_token_id": 0, "image_start_token_id": 0, "image_end_token_id": 0,
}  # fmt: skip
NUMBERS = ("extractor_dropout", "extractor_layer_norm_eps", "extractor_weight_floor", "logit_scale_init_value")


def check_image_size(settings: Mapping[str, Any]) -> None:
    """Check the image sizes in an image processor's configuration.

    Args:
        settings: Output of `image_processor.to_dict()`.

    Raises:
        ValueError: If a side is not between 1 and `MAX_IMAGE_SIDE` pixels.
    """
    for name in SIZES:
        for side in _sides(settings.get(name)):
            if not isinstance(side, int | float) or isinstance(side, bool) or not 1 <= side <= MAX_IMAGE_SIDE:
                raise ValueError(
                    f"`{name}` of the image processor must be between 1 and {MAX_IMAGE_SIDE} pixels; got {side!r}"
                )


def check_image_processor(settings: Mapping[str, Any]) -> None:
    """Check the image sizes and the normalisation in an image processor's configuration.

    Args:
        settings: Output of `image_processor.to_dict()`.

    Raises:
        ValueError: If a side is not between 1 and `MAX_IMAGE_SIDE` pixels, or a number of the normalisation is not
            finite, or a divisor is 0.
    """
    check_image_size(settings)
    for name in ("image_mean", "image_std", "rescale_factor"):
        value: Any = settings.get(name)
        value = getattr(value, "tolist", lambda found=value: found)()  # an array of a call
        for number in value if isinstance(value, list | tuple) else [value]:
            valid = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            if number is not None and (not valid or (number == 0 and name != "image_mean")):
                raise ValueError(f"`{name}` of the image processor must be finite and not 0; got {value!r}")


def check_image_patches(image_seq_length: Any) -> None:
    """Check the number of patches of an image.

    Raises:
        ValueError: If it is not an integer between 1 and `MAX_IMAGE_PATCHES`.
    """
    if not isinstance(image_seq_length, int) or not 1 <= image_seq_length <= MAX_IMAGE_PATCHES:
        raise ValueError(
            f"`image_seq_length` must be an integer between 1 and {MAX_IMAGE_PATCHES}; got {image_seq_length!r}"
        )


def check_types(config: Any) -> None:
    """Check the types of the fields of a `CIEAConfig`, which its JSON file or a command line may set to anything.

    Raises:
        TypeError: If a field has another type.
        ValueError: If an integer is too small or too large, a number is not finite, or a prompt is too long.
    """
    for name in BOOLEANS:
        if not isinstance(getattr(config, name), bool):
            raise TypeError(f"`{name}` must be true or false; got {shorten(getattr(config, name))}")
    for name, least in INTEGERS.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"`{name}` must be an integer; got {shorten(value)}")
        if not least <= value < 2**31:
            raise ValueError(f"`{name}` must be positive; got {value}" if value < least else f"`{name}` is too large")
    for name in NUMBERS:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"`{name}` must be a number; got {shorten(value)}")
        if not abs(value) < 2**31:  # written this way, the check also rejects NaN
            raise ValueError(f"`{name}` must be finite and not extreme; got {shorten(value)}")
    if not isinstance(config.prompts, dict) or not all(
        isinstance(text, str) for pair in config.prompts.items() for text in pair
    ):
        raise TypeError(f"`prompts` must map names to texts; got {shorten(config.prompts)}")
    check_prompts(config.prompts)


def check_prompts(prompts: Mapping[str, Any]) -> None:
    """Check the length of prompts, which are prepended to every text.

    Raises:
        ValueError: If one is longer than `MAX_PROMPT` characters.
    """
    for name, prompt in prompts.items():
        if isinstance(prompt, str) and len(prompt) > MAX_PROMPT:
            raise ValueError(
                f"`prompts`: {shorten(name)} must have at most {MAX_PROMPT} characters; it has {len(prompt)}"
            )


def check_sizes(settings: Mapping[str, Any], where: str) -> None:
    """Check the sizes in a tower's configuration, before memory for them is requested.

    Args:
        settings: Output of `config.to_dict()`.
        where: Name of the configuration, for the error.

    Raises:
        ValueError: If a size is negative, 0 where it divides, or larger than that of any tower.
    """
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        limit = next((limit for pattern, limit in MAX_SIZES.items() if re.search(pattern, name)), None)
        if limit is not None and not 0 <= value <= limit:
            raise ValueError(f"`{where}.{name}` must be between 0 and {limit}; got {value}")
        if value < 1 and re.search(DIVISORS, name):
            raise ValueError(f"`{where}.{name}` must be positive; got {value}")


def is_plain_name(name: Any) -> bool:
    """Return whether a name denotes a file in the same folder, on POSIX and Windows."""
    return isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\:\0]", name)


def check_weight_files(folder: Path) -> None:
    """Check that the indexes of sharded weights only name files of their own folder.

    Args:
        folder: Folder of the model; a missing folder is not checked.

    Raises:
        ValueError: If an index names a file outside the folder.
    """
    for index in sorted(folder.glob("*.index*.json")):
        weight_map = json.loads(index.read_text(encoding="utf-8")).get("weight_map") or {}
        outside = sorted({repr(name) for name in weight_map.values() if not is_plain_name(name)})
        if outside:
            raise ValueError(f"{index}: weight files must be in the same folder; got {', '.join(outside)}")


def _sides(size: Any) -> Iterator[Any]:
    if isinstance(size, list | tuple):
        yield from size
    elif isinstance(size, int | float | str):
        yield size
    elif size is not None:  # a mapping, or the `SizeDict` of transformers
        yield from (side for side in dict(size).values() if side is not None)
