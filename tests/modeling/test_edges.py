"""The model and its processor at their edges: masks, paddings, precision, unusual images, moved folders."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AlbertConfig

from ciea_hf import CIEAConfig, CIEAModel
from ciea_hf.modeling.images_ciea import load_image
from ciea_hf.modeling.layers_ciea import complement_weights
from tests.support.helpers import TEXT_FAMILIES, tiny_model, toy_image, vision_config

if TYPE_CHECKING:
    from pathlib import Path

families = pytest.mark.parametrize("text", TEXT_FAMILIES)


@pytest.mark.parametrize(
    ("text", "dtype"),  # BERT and GPT-2 add a mask of floats to the scores
    [*((text, torch.bool) for text in TEXT_FAMILIES), ("t5", torch.float32), ("bart", torch.float32)],
)
@torch.no_grad()
def test_a_mask_may_be_of_another_type(text: str, dtype: torch.dtype) -> None:
    model = tiny_model(text)
    batch = model.processor(text=["a red cat", "the house"])
    expected = model(**batch).embeddings
    found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].to(dtype)).embeddings
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_first_attended_token_is_pooled() -> None:
    model = tiny_model("bert")
    ids = model.processor(text=["a red cat"])["input_ids"]
    padded = torch.cat([torch.full((1, 2), model.processor.tokenizer.pad_token_id), ids], dim=1)
    mask = torch.tensor([[0, 0] + [1] * ids.shape[1]])
    states = model.text_model(inputs_embeds=model.get_input_embeddings()(padded), attention_mask=mask)
    torch.testing.assert_close(model(padded, mask).embeddings, states.last_hidden_state[:, 2])


@families
def test_a_tokenizer_that_pads_left_changes_nothing(text: str) -> None:
    model = tiny_model(text)
    inputs = ["a cat", "the red cat is under the big tree", {"text": "a cat", "image": toy_image()}]
    expected = model.encode(inputs)
    model.processor.tokenizer.padding_side = "left"
    np.testing.assert_allclose(model.encode(inputs), expected, atol=1e-6)


def test_complement_weights_are_computed_wide_under_autocast() -> None:
    torch.manual_seed(0)
    patches, tokens = torch.randn(2, 5, 64), torch.randn(2, 3, 64)
    patches[0, 0] = tokens[0, 1] + 0.01  # almost equal to a token: a weight near 0
    mask = torch.ones(2, 3, dtype=torch.bool)
    expected = complement_weights(patches, tokens, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = complement_weights(patches, tokens, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def test_a_language_model_of_two_widths_is_refused() -> None:
    text = AlbertConfig(vocab_size=64, embedding_size=16, hidden_size=32, num_attention_heads=4, intermediate_size=32)
    with pytest.raises(ValueError, match="this 'albert' has 16 and 32"):
        CIEAModel(CIEAConfig(vision_config=vision_config(), text_config=text, extractor_num_heads=4))


# --- where a model was read


def test_the_processor_is_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().save_pretrained(tmp_path / "demo" / "ciea")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model = CIEAModel.from_pretrained("demo/ciea")
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = tiny_model().encode("a red cat")
    np.testing.assert_allclose(model.encode("a red cat"), expected, atol=1e-5)


def test_a_deleted_folder_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().save_pretrained(tmp_path / "demo" / "ciea")
    monkeypatch.chdir(tmp_path)
    model = CIEAModel.from_pretrained("demo/ciea")
    shutil.rmtree(tmp_path / "demo")
    with pytest.raises(
        FileNotFoundError, match=r"folder that the model was loaded from, no longer exists: set `model\.processor"
    ):
        model.encode("a red cat")


def test_a_state_dict_may_replace_a_folder() -> None:
    model = tiny_model()
    again = CIEAModel.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    torch.testing.assert_close(again.projector.weight, model.projector.weight)


# --- the processor


def test_unknown_arguments_of_the_processor_are_warned_of(transformers_log: pytest.LogCaptureFixture) -> None:
    processor = tiny_model().processor
    long = " ".join(["a red cat"] * 9)
    theirs = {"truncation": "longest_first", "max_length": 4, "return_attention_mask": True}
    processor(text=[long], text_kwargs=theirs, audio_kwargs={"sampling_rate": 1}, videos_kwargs={})
    assert not transformers_log.messages
    processor(text=[long], max_lenght=3, text_kwargs={"pad_to_multiple_of": 8})
    assert transformers_log.messages == ["CIEAProcessor ignores unknown argument(s) max_lenght, pad_to_multiple_of"]


def test_a_line_of_pixels_takes_no_gigabytes() -> None:
    processor = tiny_model().processor
    square = processor(images=[Image.new("RGB", (32, 32), "red")])["pixel_values"]
    for size, shorter in (((20_000, 1), (64, 1)), ((2, 20_000), (2, 128)), ((64, 1), (64, 1))):
        line = Image.new("RGB", size, "red")
        line.paste("blue", (0, 0, size[0] // 3, size[1] // 3))  # one end, outside the central crop
        for image in (line, np.asarray(line)):
            assert load_image(image).size == shorter
        if size != shorter:
            torch.testing.assert_close(processor(images=[line])["pixel_values"], square)


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        (np.array([[0, 200]], dtype=np.uint16), "I;16", [0, 0]),
        (np.array([[0, 65535]], dtype=np.uint16), "I;16", [0, 255]),
        (np.array([[-1, 70000]], dtype=np.int32), "I", [0, 255]),
        (np.array([[7, 200]], dtype=np.int32), "I", [7, 200]),
        (np.array([[0.0, 0.5]], dtype=np.float32), "F", [0, 128]),
        (np.array([[-3.0, 200.0]], dtype=np.float32), "F", [0, 200]),
        (np.array([[np.nan, 0.5]], dtype=np.float32), "F", [0, 128]),
    ],
)
def test_shades_of_many_bits(values: Any, mode: str, expected: list[int]) -> None:
    image = Image.fromarray(values)
    assert image.mode == mode
    assert np.asarray(load_image(image))[0, :, 0].tolist() == expected
