"""The sequences the processor writes: images, captions, texts, truncation, padding, messages, saving."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, CLIPImageProcessorPil

from ciea_hf import CIEAProcessor
from tests.support.helpers import PATCHES, TEXT_FAMILIES, tiny_processor, tiny_tokenizer, toy_image
from tests.support.trained_tokenizers import TRAINED

if TYPE_CHECKING:
    from pathlib import Path

families = pytest.mark.parametrize("text", TEXT_FAMILIES)
IMAGE = "<im_start>" + "<im_patch>" * PATCHES + "<im_end>"
CAPTIONS = ["a red cat", " the  dog", "caption: bread.", "Ünïcode DRAWING 北京 ", "the<b>tower</b>", "?"]


def load_processor(kind: str) -> CIEAProcessor:
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CIEAProcessor(image_processor, TRAINED[kind](), image_seq_length=PATCHES)


def rows(batch: Any) -> list[list[int]]:
    return [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


@pytest.mark.parametrize("kind", list(TRAINED))
def test_a_captioned_image_is_tokenised_as_if_written_out(kind: str) -> None:
    processor = load_processor(kind)
    batch = processor(text=CAPTIONS, images=[toy_image(n) for n in range(len(CAPTIONS))])
    whole = processor.tokenizer([f"{IMAGE} caption: {caption}" for caption in CAPTIONS])["input_ids"]
    assert rows(batch) == whole
    assert len({len(row) for row in whole}) > 2
    assert all(row.count(processor.image_token_id) == PATCHES for row in whole)
    assert batch["pixel_values"].shape == (len(CAPTIONS), 3, 32, 32)


@pytest.mark.parametrize("kind", list(TRAINED))
def test_texts_stay_bare_and_images_alone_have_no_marks(kind: str) -> None:
    processor = load_processor(kind)
    batch = processor(text=["a red cat", None, CAPTIONS[3]], images=[None, toy_image(), None])
    texts = processor.tokenizer(["a red cat", CAPTIONS[3]])["input_ids"]
    assert rows(batch) == [texts[0], [processor.image_token_id] * PATCHES, texts[1]]
    assert batch["pixel_values"].shape == (1, 3, 32, 32)


def test_the_exact_sequence() -> None:
    processor = tiny_processor("t5")
    ids = processor(text="red cat", images=toy_image())["input_ids"][0]
    tokens = processor.tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["<im_start>", *["<im_patch>"] * 4, "<im_end>", "caption", ":", "red", "cat", "</s>"]
    ids = tiny_processor("bert")(text="red cat", images=toy_image())["input_ids"][0]
    tokens = tiny_processor("bert").tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["[CLS]", "<im_start>", *["<im_patch>"] * 4, "<im_end>", "caption", ":", "red", "cat", "[SEP]"]


@pytest.mark.parametrize("kind", list(TRAINED))
@pytest.mark.parametrize("length", [3, 8, 16])
def test_captions_are_truncated_and_placeholders_never(kind: str, length: int) -> None:
    processor = load_processor(kind)
    caption = "the big blue boat next to the green tower and the small dog"
    (row,) = rows(processor(text=[caption], images=[toy_image()], max_length=length))
    whole = processor.tokenizer(f"{IMAGE} caption: {caption}")["input_ids"]
    assert len(row) == length + PATCHES + 1  # the end mark and all behind it count as the caption's
    closing = 0 if kind == "gpt2" else 1
    assert row[: len(row) - closing] == whole[: len(row) - closing]
    assert row[len(row) - closing :] == whole[len(whole) - closing :]
    (text,) = rows(processor(text=[caption], max_length=length))
    assert len(text) == length


def test_the_models_length_bounds_the_whole_sequence() -> None:
    processor = tiny_processor("t5", max_text_length=1000)
    assert processor.tokenizer.model_max_length == 64
    words = " ".join(["cat"] * 500)
    batch = processor(text=[words, words], images=[None, toy_image()])
    assert [len(row) for row in rows(batch)] == [64, 64]
    processor.tokenizer.model_max_length = 6  # start mark, 4 patches, and no room for end mark and </s>
    with pytest.raises(
        ValueError,
        match=r"a text after its image takes at least 7 tokens; `max_length` allows 1005, and the model's maximum is 6",
    ):
        processor(text=["cat"], images=[toy_image()])
    processor.tokenizer.model_max_length = 3
    with pytest.raises(ValueError, match="an image takes 4 tokens; the model's maximum is 3"):
        processor(images=[toy_image()])
    with pytest.raises(ValueError, match="a text takes at least 3 tokens; `max_length` allows 1, "):
        tiny_processor("bert")(text=["cat"], max_length=1)


@families
def test_padding(text: str) -> None:
    processor = tiny_processor(text)
    texts, images = ["a red cat", "the small dog under the tree"], [None, toy_image()]
    longest = processor(text=texts, images=images)
    full = processor(text=texts, images=images, padding="max_length", max_length=30)
    assert full["input_ids"].shape == (2, 30 + PATCHES + 1)
    assert rows(full) == rows(longest)
    padding = longest["input_ids"][longest["attention_mask"] == 0]
    assert (padding == processor.tokenizer.pad_token_id).all()
    assert len(padding) > 0
    assert (longest["attention_mask"].diff(dim=1) <= 0).all()  # on the right
    lists = processor(text=texts, images=images, padding=False, return_tensors=None)
    assert lists["input_ids"] == rows(longest)


@families
def test_tokenizing_without_images_at_hand(text: str) -> None:
    processor = tiny_processor(text)
    whole = processor(text=["a cat", None, "a dog"], images=[toy_image(), toy_image(), None], max_length=6)
    counted = processor.tokenize(text=["a cat", None, "a dog"], has_image=[True, True, False], max_length=6)
    assert counted.keys() == {"input_ids", "attention_mask"}
    assert all(torch.equal(counted[name], whole[name]) for name in counted)


def test_image_tokens_in_a_text_are_taken_out() -> None:
    processor = tiny_processor("t5")
    batch = processor(text=["a <im_patch>red<im_end> cat", "<im_start>a cat"], images=[toy_image(), None])
    expected = processor(text=["a red cat", "a cat"], images=[toy_image(), None])
    assert torch.equal(batch["input_ids"], expected["input_ids"])


def test_a_blank_caption_counts_as_missing() -> None:
    processor = tiny_processor("t5")
    assert rows(processor(text=["", " \n", None], images=[toy_image()] * 3)) == [[processor.image_token_id] * 4] * 3
    assert rows(tiny_processor("gpt2")(text=[""])) == [[tiny_tokenizer("gpt2").eos_token_id]]  # at least one token


def test_inputs_that_do_not_fit() -> None:
    processor = tiny_processor()
    with pytest.raises(ValueError, match="`text` has 1 inputs and `images` 2"):
        processor(text=["a cat"], images=[toy_image(), toy_image()])
    with pytest.raises(ValueError, match="`text`, `images` or both"):
        processor()
    with pytest.raises(ValueError, match="input 1: an input needs a text or an image; got neither"):
        processor(text=["a cat", None], images=[None, None])
    with pytest.raises(ValueError, match="input 1: one image per input; got 2"):
        processor(text=["a cat", "a dog"], images=[None, [toy_image(), toy_image()]])
    with pytest.raises(ValueError, match="`image_processor` and `tokenizer` are both required"):
        CIEAProcessor(tokenizer=tiny_tokenizer())


@families
def test_image_token_ids(text: str) -> None:
    tokenizer = tiny_tokenizer(text)
    before = len(tokenizer)
    processor = CIEAProcessor(tiny_processor(text).image_processor, tokenizer, image_seq_length=PATCHES)
    ids = (processor.image_token_id, processor.image_start_token_id, processor.image_end_token_id)
    assert ids == (before, before + 1, before + 2)
    assert tokenizer.convert_ids_to_tokens(list(ids)) == ["<im_patch>", "<im_start>", "<im_end>"]
    again = CIEAProcessor(processor.image_processor, tokenizer, image_seq_length=PATCHES)
    assert len(tokenizer) == before + 3  # added once
    assert again.image_end_token_id == before + 2
    assert processor.model_input_names == ["input_ids", "attention_mask", "pixel_values"]


def test_the_tokenizers_own_special_tokens_stay() -> None:
    tokenizer = TRAINED["t5"]()
    own = list(tokenizer.extra_special_tokens)
    assert len(own) == 5  # <extra_id_0> ...
    processor = CIEAProcessor(tiny_processor().image_processor, tokenizer)
    assert set(tokenizer.extra_special_tokens) == {*own, "<im_patch>", "<im_start>", "<im_end>"}
    ids = processor(text=["a <extra_id_1> cat"])["input_ids"][0]
    assert tokenizer.convert_tokens_to_ids("<extra_id_1>") in ids
    assert "extra_id" not in tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", list(TRAINED))
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    processor = load_processor(kind)
    processor.max_text_length, processor.caption_prefix = 9, " : "
    processor.save_pretrained(tmp_path)
    inputs: dict[str, Any] = {"text": [*CAPTIONS, None], "images": [toy_image(n) for n in range(7)]}
    expected = processor(**inputs)
    twins = [CIEAProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)]
    twins += [copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))]  # noqa: S301 (our own bytes)
    for twin in twins:
        assert isinstance(twin, CIEAProcessor)
        assert (twin.image_seq_length, twin.max_text_length, twin.caption_prefix) == (PATCHES, 9, " : ")
        assert all(torch.equal(twin(**inputs)[name], expected[name]) for name in expected)
    assert AutoTokenizer.from_pretrained(tmp_path)("<im_end>")["input_ids"].count(processor.image_end_token_id) == 1


def message(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {
        "role": role,
        "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts],
    }


def test_messages_equal_the_call() -> None:
    processor = tiny_processor()
    image = {"type": "image", "image": toy_image(1)}
    conversations = [
        [message("a red cat")],
        [message(image, "the small dog")],
        [message("the small dog", image)],  # the order of text and image does not matter
        [message(image)],
        [{"role": "user", "content": "a red cat"}],
        [message({"type": "text", "text": None}, image)],
        [message("query : ", role="system"), message("a red cat")],
        [message("query : ", role="system"), message(image, "the small dog")],
        [message("query : ", role="system"), message(image)],  # a prompt alone makes no caption
    ]
    texts = ["a red cat", "the small dog", "the small dog", None, "a red cat", None]
    texts += ["query : a red cat", "query : the small dog", None]
    has_image = [False, True, True, True, False, True, False, True, True]
    expected = processor(text=texts, images=[toy_image(1) if has else None for has in has_image])
    batch: Any = processor.apply_chat_template(conversations, tokenize=True, return_dict=True, return_tensors="pt")
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    single = processor.apply_chat_template(conversations[0])
    assert rows(single) == rows(expected)[:1]
    assert processor.apply_chat_template(conversations, tokenize=False) == [text or "" for text in texts]
    limits = {"text_kwargs": {"max_length": 2, "padding": True}, "common_kwargs": {"return_tensors": "pt"}}
    limited: Any = processor.apply_chat_template(conversations[:1], processor_kwargs=limits)
    assert limited["input_ids"].shape == (1, 2)


def test_messages_that_do_not_fit() -> None:
    processor = tiny_processor()
    image = {"type": "image", "image": toy_image(1)}
    with pytest.raises(ValueError, match="input 1: one image per input; got 2"):
        processor.apply_chat_template([[message("a cat")], [message(image, image)]])
    with pytest.raises(ValueError, match=r"input 0: content must be of type 'text' or 'image'; got .*video"):
        processor.apply_chat_template([[message({"type": "video", "video": "x.mp4"})]])
