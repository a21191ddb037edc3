"""The model on disk and in memory: saving, loading, sharding, tied weights, number types, devices, copies."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoProcessor

from ciea_hf import CIEAConfig, CIEAModel, CIEAProcessor
from tests.support.helpers import TEXT_FAMILIES, mixed_batch, tiny_model

if TYPE_CHECKING:
    from pathlib import Path

families = pytest.mark.parametrize("text", TEXT_FAMILIES)
TIED = {"t5": ("encoder", "decoder"), "bart": ("encoder", "decoder"), "bert": (), "gpt2": ()}


def embed(model: CIEAModel) -> torch.Tensor:
    with torch.no_grad():
        embeddings: torch.Tensor = model(**mixed_batch(model)).embeddings
    return embeddings


@families
def test_saved_and_loaded_bit_by_bit(text: str, tmp_path: Path) -> None:
    model = tiny_model(text)
    model.save_pretrained(tmp_path)
    loaded, report = CIEAModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not loaded.training
    settings = CIEAConfig.from_pretrained(tmp_path).to_diff_dict()
    assert settings == {**model.config.to_diff_dict(), "auto_map": settings["auto_map"]}
    assert torch.allclose(embed(loaded), embed(model), atol=1e-5)
    # the Auto classes, registered by the import of ciea_hf, ask for no trust in remote code
    auto = AutoModel.from_pretrained(tmp_path)
    assert isinstance(auto, CIEAModel)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), CIEAConfig)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), CIEAProcessor)
    assert torch.allclose(embed(auto), embed(model), atol=1e-5)


def test_the_folder_is_complete(tmp_path: Path) -> None:
    model = tiny_model(prompts={"query": "query : ", "document": ""})
    model.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    code = {"serialization", "configuration", "encoding", "inputs", "layers", "modeling", "processing"}
    assert names >= {f"{name}_ciea.py" for name in code}
    assert names >= {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "modules.json"}
    assert not any(name.endswith((".bin", ".pt")) for name in names)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ciea.CIEAConfig",
        "AutoModel": "modeling_ciea.CIEAModel",
    }
    assert config["architectures"] == ["CIEAModel"]
    settings = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert settings["prompts"] == {"query": "query : ", "document": ""}


@families
def test_sharded(text: str, tmp_path: Path) -> None:
    model = tiny_model(text)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert torch.allclose(embed(CIEAModel.from_pretrained(tmp_path)), embed(model), atol=1e-5)


@families
def test_tied_tables_are_saved_once_and_stay_tied(text: str, tmp_path: Path) -> None:
    tiny_model(text).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        tables = [name for name in file.keys() if file.get_slice(name).get_shape() == [64, 32]]  # noqa: SIM118
    assert len(tables) == 1
    loaded = CIEAModel.from_pretrained(tmp_path)
    table = loaded.get_input_embeddings().weight
    for side in TIED[text]:
        assert getattr(loaded.text_model, side).embed_tokens.weight is table


@families
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_number_types(text: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model(text)
    model.save_pretrained(tmp_path)
    loaded = CIEAModel.from_pretrained(tmp_path, dtype=dtype)
    others = {name for name, weight in loaded.named_parameters() if weight.dtype != dtype}
    # T5 keeps one matrix in float32, which would overflow in float16
    assert all(name.endswith("DenseReluDense.wo.weight") for name in others)
    assert bool(others) == (text == "t5" and dtype == torch.float16)
    output = loaded(**mixed_batch(loaded), image_only_from="extracted", output_patches=True)
    assert output.embeddings.dtype == output.image_embeddings.dtype == dtype
    assert output.complement_weights.dtype == torch.float32
    expected = embed(model)
    difference = torch.nn.functional.cosine_similarity(output.embeddings.float(), expected)
    assert difference.min() > 0.999
    loaded.save_pretrained(tmp_path / "again")
    again = CIEAModel.from_pretrained(tmp_path / "again", dtype="auto")
    assert again.dtype == dtype
    assert torch.allclose(embed(again), embed(loaded), atol=1e-5 if dtype == torch.float32 else 2e-2)


@families
def test_device_map(text: str, tmp_path: Path) -> None:
    model = tiny_model(text)
    model.save_pretrained(tmp_path)
    expected = embed(model)
    for device_map in ("cpu", "auto"):
        assert torch.allclose(embed(CIEAModel.from_pretrained(tmp_path, device_map=device_map)), expected, atol=1e-5)


@families
def test_device_map_splits_the_model(text: str, tmp_path: Path) -> None:
    """Weights that do not fit stay on disk and are loaded when they are needed."""
    model = tiny_model(text)
    model.save_pretrained(tmp_path)
    room = sum(weight.nbytes for weight in model.parameters()) * 2 // 3
    offloaded = CIEAModel.from_pretrained(
        tmp_path, device_map="auto", max_memory={"cpu": room}, offload_folder=tmp_path / "offload"
    )
    assert set(map(str, offloaded.hf_device_map.values())) == {"cpu", "disk"}
    assert not any(name.startswith("extractor.") for name in offloaded.hf_device_map)  # one piece
    torch.testing.assert_close(embed(offloaded), embed(model), atol=1e-6, rtol=0.0)


@families
def test_pickled_and_copied(text: str) -> None:
    model = tiny_model(text)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):  # noqa: S301 (our own bytes)
        assert torch.allclose(embed(twin), embed(model), atol=1e-5)
        twin.projector.weight.data.zero_()
        assert model.projector.weight.abs().max() > 0
        table = twin.get_input_embeddings().weight
        for side in TIED[text]:
            assert getattr(twin.text_model, side).embed_tokens.weight is table


@families
def test_missing_weights_are_initialised(text: str, tmp_path: Path) -> None:
    """An extractor on top of a MARVEL checkpoint: new weights as torch makes them, the scale as configured."""
    model = tiny_model(text, use_extractor=False)
    state = model.state_dict()
    del state["logit_scale"], state["projector.weight"], state["projector.bias"]
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, report = CIEAModel.from_pretrained(
        tmp_path, use_extractor=True, logit_scale_init_value=1.5, output_loading_info=True
    )
    new = {name for name in loaded.state_dict() if name.split(".")[0] in ("extractor", "projector", "logit_scale")}
    assert set(report["missing_keys"]) == new
    assert loaded.logit_scale.item() == 1.5
    for layer in (loaded.projector, loaded.extractor.q_proj, loaded.extractor.fc1, loaded.extractor.fc2):
        bound = 1 / math.sqrt(layer.in_features)  # torch's default for weights and biases
        for weight in (layer.weight, layer.bias):
            assert 0.5 * bound < weight.abs().max() <= bound
    assert torch.equal(loaded.extractor.layer_norm.weight, torch.ones(32))
    assert torch.equal(loaded.extractor.layer_norm.bias, torch.zeros(32))
    torch.testing.assert_close(loaded.text_model.state_dict(), model.text_model.state_dict())
    assert embed(loaded).isfinite().all()


def test_a_model_without_a_processor(tmp_path: Path) -> None:
    bare = CIEAModel(tiny_model().config)
    with pytest.raises(ValueError, match=r"has no processor: set `model\.processor"):
        bare.encode(["a red cat"])
    bare.save_pretrained(tmp_path)
    assert not (tmp_path / "processor_config.json").exists()
    assert torch.equal(CIEAModel.from_pretrained(tmp_path).projector.weight, bare.projector.weight)
