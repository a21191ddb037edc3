"""Damaged checkpoints and odd settings of `ciea convert`: the same model, or an error that names file or setting."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf.convert import convert_checkpoint, read_state_dict
from tests.fuzz.outcomes import VALUES, Tally, cases, mutated_bytes, outcome
from tests.support.helpers import text_config, tiny_model, vision_config

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from ciea_hf import CIEAModel

THEIRS = {"vision_model.": "clip_model.vision_model.", "text_model.": "t5_model."}
SETTINGS = {
    "extractor_num_heads": (4, 2, 3, 0, -1, "4", 10**9), "use_extractor": (True, False, "yes"),
    "image_token_id": (61, 0, -1, 10**9, "1"), "vision_feature_layer": (-1, -2, 0, 99, "last"),
    "pooling": ("decoder_start", "mean", "max", 3), "logit_scale_init_value": (2.6, "x"), "nothing": (1,),
    "extractor_weights": ("softmax", "gate", "x"), "image_seq_length": (4, 5, 0), "prompts": ({}, {"query": 3}, 7),
}  # fmt: skip


def save_checkpoint(path: Path, model: CIEAModel) -> None:
    """Save a checkpoint under the names of the released code."""
    state = {}
    for name, tensor in model.state_dict().items():
        theirs = next((new + name.removeprefix(old) for old, new in THEIRS.items() if name.startswith(old)), name)
        state[theirs] = tensor
    torch.save({"epoch": 1, "model": state}, path)


def convert(path: Path, **settings: Any) -> dict[str, torch.Tensor]:
    return dict(convert_checkpoint(path, vision_config(), text_config(), **settings).state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def odd_content(state: dict[str, Any], numbers: random.Random) -> Any:
    """A checkpoint one of whose weights, or whose form, is odd."""
    name = numbers.choice(list(state))
    tensor = state[name]
    kinds: list[Any] = [tensor.long(), tensor.bool(), tensor.half(), tensor.to(torch.complex64), tensor.to("meta")]
    shapes = [tensor.unsqueeze(0), tensor.reshape(-1), torch.tensor(1.0), torch.empty(0)]
    values = [tensor * torch.nan, tensor / 0, tensor.to_sparse() if tensor.dim() else None, tensor.tolist(), None, "x"]
    odd = numbers.choice([*kinds, *shapes, *values])
    others: list[dict[Any, Any]] = [{**state, name: odd}, {**state, 7: tensor}, {**state, f"{name}.x": tensor}]
    others.append({key: value for key, value in state.items() if key != name})
    others.append({f"module.{key}": value for key, value in state.items()})
    changed = numbers.choice(others)
    return numbers.choice(({"model": changed}, {"model": changed}, changed, [changed], {"model": None}, 5, {}))


def test_damaged_checkpoints_convert_equal_or_are_refused(tmp_path: Path) -> None:
    model = tiny_model(use_extractor=False)
    save_checkpoint(tmp_path / "sound.pt", model)
    sound, expected = (tmp_path / "sound.pt").read_bytes(), convert(tmp_path / "sound.pt")
    state = read_state_dict(tmp_path / "sound.pt")
    tally = Tally()
    path = tmp_path / "case.pt"
    for seed, numbers in cases(40):
        if numbers.random() < 0.5:
            path.write_bytes(mutated_bytes(sound, numbers))
        else:
            torch.save(odd_content(state, numbers), path)
        found, detail = outcome(lambda: convert(path))
        if found == "clear" and not detail.startswith(f"{path}: "):
            found = "unclear"
        if found == "accepted" and not all(
            torch.allclose(tensor.float(), expected[name].float(), atol=1e-2) for name, tensor in detail.items()
        ):
            found, detail = "unclear", "other weights, silently"
        tally.add(found, f"seed {seed}: {str(detail)[:300]}")
    tally.check()


def test_settings_are_used_or_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "sound.pt", tiny_model())
    tally = Tally()
    for seed, numbers in cases(30):
        name = numbers.choice(list(SETTINGS))
        value = numbers.choice((*SETTINGS[name], *VALUES))
        given = {"extractor_num_heads": 4, "extractor_intermediate_size": 48, name: value}
        found, detail = outcome(partial(convert, tmp_path / "sound.pt", **given))
        if found == "clear" and name not in detail and "sound.pt" not in detail:
            found = "unclear"
        tally.add(found, f"seed {seed}: {name}={str(value)[:80]!r}: {str(detail)[:300]}")
    tally.check()


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\n"])
def test_files_that_are_no_checkpoint_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt: not a checkpoint of tensors alone, so it is not loaded: \w"):
        convert(tmp_path / "a.pt")
