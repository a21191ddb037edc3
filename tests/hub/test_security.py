"""Untrusted content is rejected: pickles, files outside the folder, and sizes that would exhaust the memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from ciea_hf import CIEAModel, CIEAProcessor
from ciea_hf.convert import convert_checkpoint
from ciea_hf.hub import check_folder, pull, push
from ciea_hf.modeling.validation_ciea import MAX_IMAGE_PATCHES, MAX_IMAGE_SIDE, check_image_size
from tests.support.helpers import text_config, tiny_model, tiny_processor, vision_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.hub_server import MemoryHub


class Malicious:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model().save_pretrained(folder, max_shard_size="100KB")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_payload_runs_if_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "marker")))  # noqa: S301 (the test is about unpickling)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_convert_unpickles_nothing(tmp_path: Path, zipped: bool) -> None:
    weights = {"epoch": 1, "model": {"projector.weight": Malicious(tmp_path / "marker")}}
    torch.save(weights, tmp_path / "model.best.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="not a checkpoint of tensors alone"):
        convert_checkpoint(tmp_path / "model.best.pt", vision_config(), text_config())
    assert not (tmp_path / "marker").exists()


def test_pickled_weights_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    for weights in folder.glob("model*.safetensors*"):
        weights.unlink()
    torch.save({"projector.weight": Malicious(tmp_path / "marker")}, folder / "pytorch_model.bin")
    for load in (CIEAModel.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises((pickle.UnpicklingError, OSError, ValueError)):
            load(folder)
    assert not (tmp_path / "marker").exists()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is or may be a pickle"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "a/b/scheduler.pt", "x.PKL", "emb.npy"])
def test_pull_rejects_pickles_before_any_download(hub: MemoryHub, saved: Path, name: str) -> None:
    push(saved, "org/ciea")
    repository = hub.repositories["org/ciea"]
    files = {**repository.files(), name: b"anything"}
    repository.add_commit("refs/heads/main", files, "by hand", repository.refs["refs/heads/main"])
    hub.requests.clear()
    with pytest.raises(ValueError, match=f"org/ciea is unsafe and was not downloaded: {name} is or may be"):
        pull("org/ciea")
    assert hub.received("/resolve/") == []


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickles_under_another_suffix_are_found(folder: Path, tmp_path: Path, how: str) -> None:
    if how == "pickle":
        (folder / "vocab.txt").write_bytes(pickle.dumps(Malicious(tmp_path / "marker")))
    else:
        torch.save(Malicious(tmp_path / "marker"), folder / "vocab.txt")
    with pytest.raises(ValueError, match=r"vocab\.txt is a pickle under another suffix"):
        check_folder(folder)
    assert not (tmp_path / "marker").exists()


def test_damaged_or_disguised_weights_are_found(folder: Path, hub: MemoryHub) -> None:
    check_folder(folder)
    shard = min(folder.glob("*.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        check_folder(folder)
    shard.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        check_folder(folder)
    shard.write_bytes(sorted(folder.glob("*.safetensors"))[1].read_bytes())
    with pytest.raises(ValueError, match=f"{shard.name} lacks"):
        check_folder(folder)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing"):
        check_folder(folder)


def test_a_cached_file_that_differs_from_the_hub_is_found(hub: MemoryHub, saved: Path) -> None:
    push(saved, "org/ciea")
    folder = pull("org/ciea")
    cached = (folder / "modeling_ciea.py").resolve()
    cached.write_bytes(cached.read_bytes().replace(b"import", b"IMPORT", 1))  # same size
    with pytest.raises(ValueError, match=r"modeling_ciea\.py missing or different on the Hub"):
        pull("org/ciea")


OUTSIDE = ("../evil.Module", "../../evil.Module", "/etc/evil.Module", "sub/evil.Module", "org/other--evil.Module",
           "..evil.Module", "C:\\evil.Module", "evil.Module.other", "", 3)  # fmt: skip


@pytest.mark.parametrize("reference", OUTSIDE)
@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_outside_the_folder_is_rejected(folder: Path, reference: Any, name: str) -> None:
    change(folder / name, lambda content: content.update(nested=[{"auto_map": {"AutoModel": [None, reference]}}]))
    with pytest.raises(ValueError, match=f"{name} refers to code outside the folder"):
        check_folder(folder)


def test_the_package_never_runs_code_named_in_a_config(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\nclass Module: pass\n")
    evil = {"auto_map": dict.fromkeys(("AutoConfig", "AutoModel", "AutoProcessor"), f"{tmp_path / 'evil'}.Module")}
    for name in ("config.json", "processor_config.json"):
        change(folder / name, lambda content: content.update(evil))
    assert isinstance(AutoModel.from_pretrained(folder), CIEAModel)
    assert isinstance(AutoProcessor.from_pretrained(folder), CIEAProcessor)
    assert AutoConfig.from_pretrained(folder).model_type == "ciea"
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "location", ["../outside.safetensors", "/etc/outside.safetensors", "a\\b.safetensors", "..", ""]
)
def test_weights_outside_the_folder_are_rejected(folder: Path, location: str) -> None:
    index = folder / "model.safetensors.index.json"
    shutil.copy(min(folder.glob("*.safetensors")), folder.parent / "outside.safetensors")
    change(index, lambda content: content["weight_map"].update({next(iter(content["weight_map"])): location}))
    with pytest.raises(ValueError, match="refers to a file that is outside the folder"):
        check_folder(folder)
    for load in (CIEAModel.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match="weight files must be in the same folder"):
            load(folder)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"path": "../elsewhere"}, r"refers to a path outside the folder: '\.\./elsewhere'"),
        ({"path": "/etc"}, "refers to a path outside the folder: '/etc'"),
        ({"type": "evil.Module"}, r"refers to a module outside sentence-transformers: 'evil\.Module'"),
        ({"type": "sentence_transformers/../evil"}, "refers to a module outside sentence-transformers"),
        ({"type": None}, "refers to a module outside sentence-transformers: None"),
    ],
)
def test_modules_outside_sentence_transformers_are_rejected(folder: Path, module: dict[str, Any], message: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([{**modules[0], **module}]))
    with pytest.raises(ValueError, match=f"modules.json {message}"):
        check_folder(folder)


SIZES = ({"shortest_edge": 10**6}, {"height": 224, "width": 10**9}, 10**7, 0, -1, [224, 10**6], {"height": "224"},
         float("nan"), float("inf"))  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("key", ["size", "crop_size", "pad_size"])
def test_a_huge_image_size_is_rejected(size: Any, key: str) -> None:
    with pytest.raises(
        ValueError, match=f"`{key}` of the image processor must be between 1 and {MAX_IMAGE_SIDE} pixels"
    ):
        check_image_size({key: size})


def test_a_processor_with_a_huge_image_size_is_rejected(folder: Path) -> None:
    change(
        folder / "processor_config.json", lambda content: content["image_processor"]["crop_size"].update(width=10**6)
    )
    message = f"`crop_size` of the image processor must be between 1 and {MAX_IMAGE_SIDE} pixels; got 1000000"
    for load in (CIEAProcessor.from_pretrained, AutoProcessor.from_pretrained):
        with pytest.raises(ValueError, match=message):
            load(folder)
    with pytest.raises(ValueError, match=message):
        check_folder(folder)
    with pytest.raises(ValueError, match=message):
        CIEAModel.from_pretrained(folder).encode(["a cat"])


def test_a_processor_with_a_huge_number_of_patches_is_rejected(folder: Path) -> None:
    change(folder / "processor_config.json", lambda content: content.update(image_seq_length=10**9))
    message = f"`image_seq_length` must be an integer between 1 and {MAX_IMAGE_PATCHES}; got 1000000000"
    with pytest.raises(ValueError, match=message):
        CIEAProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match=message):
        check_folder(folder)


def test_usual_image_sizes_are_accepted() -> None:
    assert tiny_processor().image_processor.size
    for size in (224, {"shortest_edge": 512}, {"height": 1024, "width": 1024}, (518, 518), None):
        check_image_size({"size": size})


REQUIRED = ("config.json", "processor_config.json", "modules.json", "tokenizer_config.json", "validation_ciea.py",
          "config_sentence_transformers.json", "modeling_ciea.py")  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_every_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        check_folder(folder)


def test_another_model_type_is_rejected(folder: Path) -> None:
    change(folder / "config.json", lambda content: content.update(model_type="t5"))
    with pytest.raises(
        ValueError, match=r"config\.json is not a CIEA configuration: `model_type` must be 'ciea'; got 't5'"
    ):
        check_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        check_folder(folder)


def test_a_model_that_does_not_load_is_not_published(folder: Path) -> None:
    check_folder(folder)
    change(folder / "config.json", lambda config: config["text_config"].update(num_decoder_layers=3))
    with pytest.raises(ValueError, match=r"its weights lack 13 tensors that config\.json asks for"):
        check_folder(folder)
    change(folder / "config.json", lambda config: config["text_config"].update(num_decoder_layers="two"))
    with pytest.raises(ValueError, match=r"the model cannot be loaded: .*num_decoder_layers"):
        check_folder(folder)


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path) -> None:
    model = tiny_model()
    model.projector.bias.data[3] = float("inf")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"weights contain NaN or infinity: projector\.bias"):
        check_folder(tmp_path)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("nested", [False, True])
def test_kernels_from_the_hub_are_refused(folder: Path, key: str, nested: bool) -> None:
    def name_kernel(config: dict[str, Any]) -> None:
        (config["vision_config"] if nested else config)[key] = {"": "someone/kernel"} if nested else "someone/kernel"

    change(folder / "config.json", name_kernel)
    with pytest.raises(ValueError, match=r"config\.json would fetch code from the Hub: .*'someone/kernel'"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer_config.json", "config.json"])
def test_a_file_of_another_form_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("5")
    with pytest.raises(ValueError, match=f"{name} (must hold a JSON object|is not a CIEA configuration)"):
        check_folder(folder)
