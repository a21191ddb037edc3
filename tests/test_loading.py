"""Model folders with damaged, contradictory or dangerous files: one line that says what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize

from ciea_hf.commands.common import write
from ciea_hf.convert import read_state_dict
from ciea_hf.hub.staging import staged
from ciea_hf.loading import load_encoder
from ciea_hf.modeling import CIEAConfig, CIEAModel
from ciea_hf.reporting import printable
from tests.support.helpers import tiny_model, toy_image

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
    drop_weights(folder, "extractor.")
    with pytest.raises(ValueError, match=r"its weights lack \d+ tensors .* such as 'extractor"):
        load_encoder(str(folder))


def test_a_layer_more_than_the_weights_have_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_decoder_layers"] = config["text_config"]["num_layers"] + 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="its weights lack"):
        load_encoder(str(folder))


def drop_weights(folder: Path, prefix: str) -> None:
    """Remove the weights whose names have a prefix."""
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def stacked(tmp_path: Path) -> Path:
    """A CIEA model followed by a dense layer and a normalisation."""
    tiny_model().save_pretrained(tmp_path / "plain")
    first = SentenceTransformer(str(tmp_path / "plain"), device="cpu")[0]
    SentenceTransformer(modules=[first, Dense(32, 16), Normalize()], device="cpu").save_pretrained(
        str(tmp_path / "stacked")
    )
    return tmp_path / "stacked"


def test_a_model_with_further_modules_is_loaded(stacked: Path) -> None:
    assert load_encoder(str(stacked)).encode_document(["a cat", toy_image()]).shape == (2, 16)


def test_missing_weights_of_a_model_with_further_modules_are_refused(stacked: Path) -> None:
    drop_weights(stacked, "extractor.")
    with pytest.raises(ValueError, match=r"stacked cannot be loaded: its weights lack \d+ tensors .* 'extractor"):
        load_encoder(str(stacked))


@pytest.mark.parametrize("damage", ["file", "tensor", "shape", "folder", "entry"])
def test_missing_weights_of_a_further_module_are_refused(stacked: Path, damage: str) -> None:
    dense = next(stacked.glob("*_Dense"))
    if damage == "file":
        (dense / "model.safetensors").unlink()
    elif damage == "tensor":
        drop_weights(dense, "linear.bias")
    elif damage == "shape":
        edit(dense / "config.json", out_features=8)
    elif damage == "folder":
        dense.rename(stacked / "elsewhere")
    else:
        modules = json.loads((stacked / "modules.json").read_text())
        (stacked / "modules.json").write_text(json.dumps([modules[0], 5]))
    with pytest.raises(ValueError, match=r"stacked") as caught:
        load_encoder(str(stacked))
    assert "\n" not in str(caught.value)


def test_another_shape_of_weights_is_refused_in_one_line(folder: Path, transformers_log: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["d_ff"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"\(weights\): its weights lack 8 tensors .*DenseReluDense"):
        load_encoder(str(folder))
    assert "LOAD REPORT" not in transformers_log.text


def test_from_pretrained_warns_of_random_weights_and_of_values_that_are_not_finite(
    folder: Path, transformers_log: pytest.LogCaptureFixture
) -> None:
    assert not CIEAModel.from_pretrained(folder).missing_weights
    assert not transformers_log.messages
    weights = load_file(folder / "model.safetensors")
    weights["projector.weight"][0, 0] = float("nan")
    del weights["logit_scale"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert CIEAModel.from_pretrained(folder).missing_weights == ("logit_scale",)
    assert (
        "lacks 1 weights of the model, such as 'logit_scale'. They are initialised at random" in transformers_log.text
    )
    assert "the weights projector.weight contain NaN or infinity" in transformers_log.text
    SentenceTransformer(str(folder), device="cpu")
    assert transformers_log.text.count("projector.weight contain NaN") == 2


def test_a_model_of_images_alone_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    settings["modality_config"] = {"image": settings["modality_config"]["image"]}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr("ciea_hf.loading._model_type", lambda _name: None)  # as a model of another kind
    assert load_encoder(str(folder)).encode_document([toy_image()]).shape == (1, 32)


@pytest.mark.parametrize("name", ["config.json", "config_sentence_transformers.json"])
def test_prompts_longer_than_any_text_are_refused(folder: Path, name: str) -> None:
    edit(folder / name, prompts={"query": "a " * 10_000})
    with pytest.raises(
        ValueError, match=f"{name}: `prompts`: 'query' must have at most 10000 characters; it has 20000"
    ):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("tower", "name"),
    [("vision_config", "patch_size"), ("vision_config", "num_attention_heads"), ("text_config", "num_heads")],
)
def test_sizes_of_zero_that_divide_are_refused(tower: str, name: str) -> None:
    config = tiny_model().config.to_dict()
    config[tower][name] = 0
    with pytest.raises(ValueError, match=f"`{tower}.{name}` must be positive; got 0"):
        CIEAConfig(**config)


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
    foreign = {"id_rsa", "notes.ipynb", "notes.txt", "checkpoint-5/optimizer.json", "secrets.yaml", "credentials.json"}
    for name in foreign:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    with staged(folder, None, {}) as files:
        assert not foreign & set(files.contents)
        assert {"config.json", "model.safetensors", "README.md", "modeling_ciea.py"} <= set(files.contents)
    assert (
        "not uploaded, because they do not belong to a model: checkpoint-5/optimizer.json, credentials.json, id_rsa"
        in caplog.text
    )


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
