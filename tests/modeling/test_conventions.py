"""Conventions of transformers and sentence-transformers that their users rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ciea_hf.modeling import CIEAModel, CIEAProcessor
from tests.support.helpers import PATCHES, TEXT_FAMILIES, mixed_batch, tiny_model, tiny_processor, toy_image

if TYPE_CHECKING:
    from pathlib import Path

families = pytest.mark.parametrize("text", TEXT_FAMILIES)


@families
def test_hidden_states_and_attentions_are_returned_where_asked(text: str) -> None:
    model = tiny_model(text)
    model.set_attn_implementation("eager")
    batch = mixed_batch(model)
    plain = model(**batch)
    assert plain.hidden_states is None
    assert plain.attentions is None
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(output.embeddings, plain.embeddings)
    rows, length = batch["input_ids"].shape
    assert len(output.hidden_states) == len(output.attentions) + 1
    assert {tuple(states.shape) for states in output.hidden_states} == {(rows, length, 32)}
    assert {tuple(attention.shape[-2:]) for attention in output.attentions} == {(length, length)}


@pytest.mark.parametrize("name", ["inputs_embeds", "labels", "decoder_input_ids"])
def test_arguments_of_language_models_that_have_no_meaning_here_are_refused(name: str) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=f"CIEAModel embeds `input_ids` and images; it does not take {name}"):
        model(**mixed_batch(model), **{name: torch.zeros(1, 2)})
    model(**mixed_batch(model), **{name: None})


def test_a_checkpoint_without_tower_weights_is_initialised_as_transformers_does() -> None:
    model = CIEAModel.from_pretrained(None, config=tiny_model().config, state_dict={})
    weight = model.text_model.encoder.block[0].layer[0].SelfAttention.q.weight
    config = model.config.text_config
    assert weight.std().item() == pytest.approx((config.d_model * config.d_kv) ** -0.5, rel=0.2)
    assert model.text_model.encoder.block[0].layer[0].layer_norm.weight.eq(1).all()


def test_features_by_modality_equal_encode() -> None:
    model = tiny_model()
    texts, images = ["a cat", "the small dog"], [toy_image(1), toy_image(2)]
    batch = model.processor(text=texts)
    with torch.no_grad():
        found = model.get_text_features(batch["input_ids"], batch["attention_mask"])
        np.testing.assert_allclose(found.numpy(), model.encode(texts), atol=1e-5)
        batch = model.processor(images=images)
        expected = model.encode(images)
        np.testing.assert_allclose(model.get_image_features(**batch).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(model.get_image_features(batch["pixel_values"]).numpy(), expected, atol=1e-5)


def test_a_bare_transformer_module_embeds_texts_and_images(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.transformer import Transformer

    model = tiny_model()
    model.save_pretrained(tmp_path)
    module = SentenceTransformer(modules=[Transformer(str(tmp_path))])
    np.testing.assert_allclose(module.encode(["a cat"]), model.encode(["a cat"]), atol=1e-5)
    np.testing.assert_allclose(module.encode([toy_image(1)]), model.encode([toy_image(1)]), atol=1e-5)


def test_arguments_of_the_image_processor_are_passed_on() -> None:
    processor = tiny_processor()
    image = toy_image(1, (50, 44))
    plain = processor(images=[image])["pixel_values"]
    expected = processor.image_processor([image], do_normalize=False, return_tensors="pt")["pixel_values"]
    assert not torch.equal(plain, expected)
    for options in ({"do_normalize": False}, {"images_kwargs": {"do_normalize": False}},
                    {"common_kwargs": {"do_normalize": False}}):  # fmt: skip
        torch.testing.assert_close(processor(images=[image], **options)["pixel_values"], expected)
    small = processor(images=[image], size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    assert small["pixel_values"].shape == (1, 3, 16, 16)
    arrays = processor(images=[image, image], images_kwargs={"return_tensors": "np"})
    assert isinstance(arrays["pixel_values"], np.ndarray)


def test_an_argument_that_is_given_twice_is_refused() -> None:
    processor = tiny_processor()
    with pytest.raises(ValueError, match="`max_length` is given twice: 5, and 7 in `text_kwargs`"):
        processor(text=["a cat"], max_length=5, text_kwargs={"max_length": 7})
    with pytest.raises(ValueError, match="`do_normalize` is given twice"):
        processor(images=[toy_image()], do_normalize=True, images_kwargs={"do_normalize": False})
    processor(text=["a cat"], max_length=5, text_kwargs={"max_length": 5})


def test_the_maximum_length_of_from_pretrained_is_kept(tmp_path: Path) -> None:
    tiny_processor().save_pretrained(tmp_path)
    processor = CIEAProcessor.from_pretrained(tmp_path, max_length=5)
    assert processor.max_text_length == 5
    assert processor(text=["a red cat and a small dog"])["input_ids"].shape == (1, 5)


@families
def test_padding_to_the_maximum_counts_images_only_where_there_are_any(text: str) -> None:
    processor = tiny_processor(text)
    padded = processor(text=["a cat"], max_length=20, padding="max_length")
    assert padded["input_ids"].shape == (1, 20)
    padded = processor(text=["a cat"], images=[toy_image()], max_length=20, padding="max_length")
    assert padded["input_ids"].shape == (1, 20 + PATCHES + 1)


def test_one_list_of_images_per_input_is_unwrapped() -> None:
    processor = tiny_processor()
    nested, flat = (
        processor(text=["a cat", "a dog"], images=images) for images in ([[toy_image()], []], [toy_image(), None])
    )
    assert all(torch.equal(nested[name], flat[name]) for name in flat)
    with pytest.raises(ValueError, match="input 0: one image per input; got 2"):
        processor(text=["a cat", "a dog"], images=[[toy_image(), toy_image()], []])


def test_images_of_messages_are_read_under_all_names(tmp_path: Path) -> None:
    import base64

    processor = tiny_processor()
    path = tmp_path / "cat.png"
    toy_image(1).save(path)

    def pixels(**image: Any) -> torch.Tensor:
        message = {"role": "user", "content": [{"type": "image", **image}, {"type": "text", "text": "a cat"}]}
        batch: Any = processor.apply_chat_template([[message]], return_tensors="pt")
        return batch["pixel_values"]

    expected = pixels(image=toy_image(1))
    for part in ({"path": str(path)}, {"base64": base64.b64encode(path.read_bytes()).decode()}, {"url": str(path)}):
        torch.testing.assert_close(pixels(**part), expected)
    with pytest.raises(ValueError, match=r"input 0: 'http://x\.org/cat\.png' is a URL, and URLs are not fetched"):
        pixels(url="http://x.org/cat.png")
    with pytest.raises(ValueError, match=r"a part of type 'image' needs 'image', 'path', 'url' or 'base64'"):
        pixels(picture="cat")


@pytest.mark.parametrize("conversation", [[[{"role": "user"}]], [[7]], [[{"content": 7}]], [[{"content": ["a"]}]]])
def test_messages_without_content_are_named(conversation: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"input 0: .*content"):
        tiny_processor().apply_chat_template(conversation)


def test_missing_parts_of_a_row_are_left_out_of_the_counts_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    tiny_model().save_pretrained(tmp_path)
    model = SentenceTransformer(str(tmp_path))
    rows = [{"text": None, "image": toy_image(1)}, {"text": "b", "image": None}, {"text": "c", "image": toy_image(2)}]
    features = model.preprocess(rows)
    assert features["num_images_per_sample"].tolist() == [1, 0, 1]
    plain = [{"image": toy_image(1)}, {"text": "b"}, {"text": "c", "image": toy_image(2)}]
    np.testing.assert_allclose(model.encode(rows), model.encode(plain), atol=1e-5)


def test_a_model_whose_weights_are_on_disk_encodes(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    offloaded = CIEAModel.from_pretrained(tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "off")
    inputs = ["a cat", toy_image(1), {"text": "a dog", "image": toy_image(2)}]
    np.testing.assert_allclose(offloaded.encode(inputs), model.encode(inputs), atol=1e-5)
