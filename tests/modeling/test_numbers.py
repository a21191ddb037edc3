"""What is refused by name where it enters: cut surrogate pairs, packed bits, weights and images that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ciea_hf.modeling import CIEAProcessor
from tests.support.helpers import tiny_model, tiny_processor, toy_image


@pytest.mark.parametrize("text", ["half an emoji \ud83d", "\udcfcber", "a\udfff"])
def test_half_a_surrogate_pair_is_named(text: str) -> None:
    model = tiny_model()
    for inputs in (["fine"] * 5 + [text], ["fine"] * 5 + [{"text": text, "image": toy_image()}]):
        with pytest.raises(ValueError, match=r"input 5: character \d+ of the text is half of a surrogate pair"):
            model.encode(inputs)
    with pytest.raises(ValueError, match="input 1: character"):
        model.processor(text=["fine", text])


@pytest.mark.parametrize("text", [7, ["a", "b"], b"bytes"])
def test_a_text_that_is_not_a_str_is_named(text: Any) -> None:
    with pytest.raises(TypeError, match="input 1: a text must be a str or None; got"):
        tiny_processor()(text=["fine", text])


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_packed_bits_have_no_cosine(precision: Any) -> None:
    model = tiny_model()
    packed = model.encode(["a cat", "a dog"], precision=precision)
    for compare in (model.similarity, model.similarity_pairwise):
        with pytest.raises(ValueError, match="embeddings of 4 bytes are packed bits, which have no cosine"):
            compare(packed, packed)
    unsigned = packed if precision == "ubinary" else (packed.astype(int) + 128).astype(np.uint8)
    bits = np.unpackbits(unsigned, axis=-1)
    assert model.similarity(bits, bits).shape == (2, 2)


def test_embeddings_of_different_widths_are_not_compared() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="embeddings must have the same width; got 32 and 8"):
        model.similarity(model.encode(["a"]), model.encode(["a"], truncate_dim=8))


@pytest.mark.parametrize("truncate_dim", [None, 1, 7, 8, 9, 31])
@pytest.mark.parametrize("precision", ["binary", "ubinary", "int8"])
def test_no_inputs_give_embeddings_of_the_same_width(precision: Any, truncate_dim: int | None) -> None:
    model = tiny_model()
    some = model.encode(["a cat", "a dog"], precision=precision, truncate_dim=truncate_dim)
    none = model.encode([], precision=precision, truncate_dim=truncate_dim)
    assert none.shape == (0, some.shape[1])
    assert none.dtype == some.dtype


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e19, 3e37])
def test_cosines_do_not_depend_on_the_scale(scale: float) -> None:
    model = tiny_model()
    first, second = torch.randn(3, 32), torch.randn(4, 32)
    expected = torch.nn.functional.cosine_similarity(first[:, None].double(), second[None].double(), dim=-1)
    torch.testing.assert_close(model.similarity(first * scale, second).double(), expected, atol=1e-5, rtol=1e-4)
    assert not model.similarity(torch.zeros(1, 32), second).any()


def test_embeddings_that_are_not_finite_are_an_error() -> None:
    model = tiny_model()
    table: Any = model.get_input_embeddings()
    table.weight.data[model.processor.tokenizer.convert_tokens_to_ids("cat")] = float("nan")
    with pytest.raises(ValueError, match="input 2: the embedding is not finite"):
        model.encode(["a dog", "a dog", "a cat"])
    assert np.isfinite(model.encode(["a dog"])).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_std", [0.5, 0.5, 0]), ("image_std", [0.5, float("nan"), 1]), ("image_mean", [float("inf"), 0, 0]),
     ("rescale_factor", 0), ("rescale_factor", "x")],
)  # fmt: skip
def test_a_normalisation_that_gives_no_numbers_is_refused(name: str, value: Any) -> None:
    processor = tiny_processor()
    setattr(processor.image_processor, name, value)
    with pytest.raises(ValueError, match=f"`{name}` of the image processor must be finite and not 0"):
        CIEAProcessor(processor.image_processor, processor.tokenizer)
