"""The numbers of the released model, on tiny random weights, and the reading of its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from ciea_hf.convert import convert_checkpoint

if TYPE_CHECKING:
    from ciea_hf import CIEAModel

DATA = Path(__file__).parents[1] / "support" / "files"
CHECKPOINT = DATA / "t5_64_16.model.best.pt"
TOLERANCE: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return dict(json.loads((DATA / "t5_64_16.json").read_text()))


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(DATA / "t5_64_16.io.safetensors")


def convert(settings: dict[str, Any], checkpoint: Path = CHECKPOINT, **overrides: Any) -> CIEAModel:
    return convert_checkpoint(
        checkpoint,
        settings["vision_config"],
        settings["text_config"],
        **{
            "image_token_id": settings["im_patch_id"],
            "image_start_token_id": settings["im_start_id"],
            "image_end_token_id": settings["im_end_id"],
            **overrides,
        },
    )


def image_inputs(settings: dict[str, Any], expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rows, patches = expected["caption_ids"].shape[0], settings["num_patches"]
    image = [settings["im_start_id"]] + patches * [settings["im_patch_id"]] + [settings["im_end_id"]]
    ids = torch.cat([torch.tensor([image] * rows), expected["caption_ids"]], dim=1)
    mask = torch.cat([torch.ones(rows, len(image), dtype=torch.long), expected["caption_mask"]], dim=1)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": expected["pixel_values"]}


@torch.no_grad()
def test_captioned_image(settings: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    model = convert(settings)
    output = model(**image_inputs(settings, expected), image_only_from="extracted", output_patches=True)
    torch.testing.assert_close(output.projected_patches, expected["projected_patches"], **TOLERANCE)
    torch.testing.assert_close(output.extracted_patches, expected["extracted_patches"], **TOLERANCE)
    torch.testing.assert_close(output.embeddings, expected["document_embedding"], **TOLERANCE)
    torch.testing.assert_close(output.image_embeddings, expected["extracted_image_embedding"], **TOLERANCE)
    # the extractor matters: without it the document embedding differs
    assert (output.extracted_patches - output.projected_patches).abs().max() > 0.1


@torch.no_grad()
def test_image_alone_and_image_only(settings: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    model = convert(settings)
    inputs = image_inputs(settings, expected)
    output = model(**inputs, image_only_from="projected")
    torch.testing.assert_close(output.image_embeddings, expected["image_only_embedding"], **TOLERANCE)
    rows, patches = expected["caption_ids"].shape[0], settings["num_patches"]
    ids = torch.full((rows, patches), settings["im_patch_id"])
    alone = model(input_ids=ids, pixel_values=inputs["pixel_values"]).embeddings
    torch.testing.assert_close(alone, expected["image_only_embedding"], **TOLERANCE)


@torch.no_grad()
def test_query(settings: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    output = convert(settings)(input_ids=expected["query_ids"], attention_mask=expected["query_mask"])
    torch.testing.assert_close(output.embeddings, expected["query_embedding"], **TOLERANCE)


@torch.no_grad()
def test_marvel_checkpoint(settings: dict[str, Any], expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    content = torch.load(CHECKPOINT, weights_only=True)
    content["model"] = {k: v for k, v in content["model"].items() if not k.startswith("information_extract.")}
    path = tmp_path / "marvel.pt"
    torch.save(content, path)
    model = convert(settings, path)
    assert model.extractor is None
    assert not model.config.use_extractor
    output = model(**image_inputs(settings, expected), output_patches=True)
    torch.testing.assert_close(output.extracted_patches, expected["projected_patches"], **TOLERANCE)


def test_image_token_ids_default_to_the_last_rows(settings: dict[str, Any]) -> None:
    config = convert_checkpoint(CHECKPOINT, settings["vision_config"], settings["text_config"]).config
    ids = (config.image_token_id, config.image_start_token_id, config.image_end_token_id)
    assert ids == (settings["im_patch_id"], settings["im_start_id"], settings["im_end_id"])


def test_keys_that_do_not_fit_are_named(settings: dict[str, Any], tmp_path: Path) -> None:
    content = torch.load(CHECKPOINT, weights_only=True)
    del content["model"]["projector.bias"]
    content["model"]["stranger.weight"] = torch.zeros(1)
    content["model"]["information_extract.layer_norm.bias"] = torch.zeros(7)
    path = tmp_path / "broken.pt"
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"missing: projector\.bias; unexpected: stranger\.weight; .*layer_norm\.bias \(7,\)"
    ):
        convert(settings, path)


def test_code_in_a_checkpoint_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    path = tmp_path / "malicious.pt"
    torch.save({"epoch": 1, "model": {"logit_scale": Malicious()}}, path)
    with pytest.raises(ValueError, match="load failed"):
        convert(settings, path)
    assert not (tmp_path / "owned").exists()


def test_missing_file_and_wrong_content(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert(settings, tmp_path / "nowhere.pt")
    path = tmp_path / "list.pt"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="name\\}; got list"):
        convert(settings, path)
    torch.save({"model": {"projector.bias": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match="token table"):
        convert(settings, path)


def test_names_of_other_writers(settings: dict[str, Any], tmp_path: Path) -> None:
    """Written under DistributedDataParallel, with CLIP's text side, and a causal mask that was a buffer once."""
    content = torch.load(CHECKPOINT, weights_only=True)
    extra = {"clip_model.text_projection.weight": torch.zeros(2, 2), "t5_model.h.0.attn.masked_bias": torch.zeros(1)}
    content["model"] = {f"module.{name}": tensor for name, tensor in {**content["model"], **extra}.items()}
    torch.save(content, tmp_path / "ddp.pt")
    same, plain = convert(settings, tmp_path / "ddp.pt").state_dict(), convert(settings).state_dict()
    assert all(torch.equal(same[name], tensor) for name, tensor in plain.items())
