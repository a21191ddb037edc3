"""Model folders with damaged, contradictory or dangerous files: one line that says what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ciea_hf.cli import main
from ciea_hf.commands.common import write
from ciea_hf.convert import read_state_dict
from ciea_hf.hub.staging import staged
from ciea_hf.loading import load_encoder
from ciea_hf.modeling import CIEAConfig
from ciea_hf.reporting import printable
from tests.fuzz.outcomes import cases, mutated_bytes, mutated_json
from tests.support.helpers import tiny_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text())
    content.update(values)
    file.write_text(json.dumps(content))


def test_missing_weights_are_not_replaced_by_random_ones(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("extractor.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"its weights lack \d+ tensors .* such as 'extractor"):
        load_encoder(str(folder))


def test_a_layer_more_than_the_weights_have_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_decoder_layers"] = config["text_config"]["num_layers"] + 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="its weights lack"):
        load_encoder(str(folder))


@pytest.mark.parametrize("content", ["{", "5", '"a"', "[" * 50_000, "\x00"])
@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_damaged_json_files_are_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} (is not valid JSON|must hold a JSON object)"):
        load_encoder(str(folder))


@pytest.mark.parametrize(("name", "value"), [("num_layers", 10**6), ("d_model", 10**9), ("vocab_size", -1)])
def test_sizes_that_no_tower_has_are_refused(name: str, value: int) -> None:
    config = tiny_model().config.to_dict()
    config["text_config"][name] = value
    with pytest.raises(ValueError, match=f"`text_config.*` must be between 0 and .*; got {value}"):
        CIEAConfig(**config)


def test_kernels_from_the_hub_are_refused(folder: Path) -> None:
    edit(folder / "config.json", attn_implementation="someone/kernel")
    with pytest.raises(ValueError, match="`attn_implementation` 'someone/kernel' would fetch code from the Hub"):
        load_encoder(str(folder))


def test_weights_have_the_mode_of_the_other_files(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_the_device_meta_has_no_values(folder: Path) -> None:
    with pytest.raises(ValueError, match="--device must be one of cpu"):
        load_encoder(str(folder), "meta")


def test_mutated_model_folders_give_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [file.name for file in sorted(folder.iterdir()) if file.suffix in (".json", ".safetensors")]
    outcomes = {0: 0, 2: 0}
    for _, numbers in cases(12):
        name = numbers.choice(names)
        original = (folder / name).read_bytes()
        if name.endswith(".json"):
            (folder / name).write_text(json.dumps(mutated_json(json.loads(original), numbers)))
        else:
            (folder / name).write_bytes(mutated_bytes(original, numbers))
        status = main(["encode", str(folder), "--text", "a cat", "--output", str(tmp_path / "a.npy")])
        error = capsys.readouterr().err
        outcomes[status] += 1
        if status:
            assert error.strip().splitlines()[-1].startswith("ciea: error: "), (name, error)
        (folder / name).write_bytes(original)
    assert outcomes[2]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": torch.tensor([float("nan")])}, "'a' contains NaN or infinity"),
        ({"a": torch.ones(2, dtype=torch.long)}, "'a' must hold floating-point numbers; got torch.int64"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "'a' must hold floating-point numbers"),
        ({7: torch.ones(2)}, "'7' is not the name of a weight"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is sparse, quantised or without values"),
    ],
)
def test_checkpoints_whose_weights_are_none_are_refused(tmp_path: Path, weights: Any, message: str) -> None:
    torch.save({"model": weights}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_a_checkpoint_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(64)}}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    position = data.index(torch.ones(8).numpy().tobytes())
    data[position + 2] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(ValueError, match="does not have its checksum"):
        read_state_dict(tmp_path / "a.pt")


def test_only_what_belongs_to_a_model_is_uploaded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("id_rsa", "notes.ipynb", "notes.txt", "checkpoint-5/optimizer.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    with staged(folder, None, {}) as files:
        assert not {"id_rsa", "notes.ipynb", "notes.txt", "checkpoint-5/optimizer.json"} & set(files.contents)
        assert {"config.json", "model.safetensors", "README.md", "modeling_ciea.py"} <= set(files.contents)
    assert "not uploaded, because they do not belong to a model: checkpoint-5/optimizer.json, id_rsa" in caplog.text


def test_links_out_of_the_folder_are_not_uploaded(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret")
    with (
        pytest.raises(ValueError, match=r"is a link to .*secret, which is outside the folder"),
        staged(folder, None, {}),
    ):
        pass


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    write("a\x1b[31mred\x07\u202eturned\ud83d\u2028 \u00fc\U0001f469\u200d\U0001f680\n\tend")
    assert capsys.readouterr().out == (
        "a\\x1b[31mred\\x07\\u202eturned\\ud83d\\u2028 \u00fc\U0001f469\u200d\U0001f680\n\tend\n"
    )
    assert printable("a\nforged", keep="") == "a\\nforged"
