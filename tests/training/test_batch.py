"""Reduced queries, batches, the order of embeddings, the sampler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from ciea_hf.retrieval.documents import DocumentInput, DocumentView
from ciea_hf.training.data.batch import TrainingBatch, first_occurrences, group_by_length, membership
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder, mask_token_id, reduce_tokens
from ciea_hf.training.data.examples import (
    AlignmentExamples,
    Example,
    RetrievalExamples,
    WarmUpExamples,
)
from ciea_hf.training.data.sampler import SampleKey
from ciea_hf.training.loss.embedder import Embedder
from tests.support.helpers import TEXT_FAMILIES, tiny_model, tiny_tokenizer, toy_image
from tests.support.toy_training import training_data

# --- reduction


@pytest.mark.parametrize(
    ("tokens", "shared", "deleted", "masked"),
    [
        ([5, 6, 7, 1], {6}, [5, 7, 1], [5, 99, 7, 1]),
        ([5, 6, 5, 1], {5}, [6, 1], [99, 6, 99, 1]),  # every occurrence
        ([5, 6, 1], set(), [5, 6, 1], [5, 6, 1]),  # nothing shared
        ([5, 6, 1], {5, 6}, None, None),  # nothing left
        ([5, 6, 1], {5, 1}, [6, 1], [99, 6, 1]),  # special tokens stay
        ([1], {1}, None, None),  # special tokens do not count
        ([], {1}, None, None),
    ],
)
def test_reduction_by_hand(tokens: Any, shared: Any, deleted: Any, masked: Any) -> None:
    assert reduce_tokens(tokens, shared, kept={1}) == deleted
    assert reduce_tokens(tokens, shared, kept={1}, mask=99) == masked


def words(tokenizer: Any, tokens: Any) -> Any:
    return None if tokens is None else " ".join(tokenizer.convert_ids_to_tokens(tokens))


def test_reducer_takes_out_what_any_caption_says() -> None:
    tokenizer = tiny_tokenizer("t5")
    query = tokenizer("where is the red cat")["input_ids"]
    delete = ComplementaryQueryBuilder(tokenizer)
    assert words(tokenizer, delete(query, ["a photo of the cat"])) == "where is red </s>"
    assert words(tokenizer, delete(query, ["a cat", "the red house"])) == "where is </s>"  # all positive images
    assert words(tokenizer, delete(query, [])) == "where is the red cat </s>"  # a positive without a caption
    assert delete(query, ["where is the red cat in"]) is None
    mask = ComplementaryQueryBuilder(tokenizer, "mask")
    assert words(tokenizer, mask(query, ["a photo of the cat"])) == "where is <unk> red <unk> </s>"


def test_reducer_keeps_the_prompt() -> None:
    tokenizer = tiny_tokenizer("bert")
    query = tokenizer("query : the red cat")["input_ids"]
    reducer = ComplementaryQueryBuilder(tokenizer, prompt="query : ")
    assert words(tokenizer, reducer(query, ["query : the cat"])) == "[CLS] query : red [SEP]"
    assert reducer(query, ["the red cat"]) is None  # a prompt alone has no content


def test_what_is_masked_with() -> None:
    tokenizer = tiny_tokenizer("t5")
    assert mask_token_id(tokenizer) == tokenizer.unk_token_id
    tokenizer.add_tokens(["<extra_id_0>"])
    assert mask_token_id(tokenizer) == tokenizer.convert_tokens_to_ids("<extra_id_0>")
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    assert mask_token_id(tokenizer) == tokenizer.convert_tokens_to_ids("[MASK]")


# --- grouping and masks


def test_groups_hold_inputs_of_like_length_once() -> None:
    lengths = [3, 60, 5, 4, 58, 30, 3]
    groups = group_by_length(lengths, minimum=2)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    assert [[lengths[position] for position in group] for group in groups] == [[60, 58], [30, 5], [4, 3, 3]]
    assert [len(group) for group in group_by_length([4] * 10, limit=4)] == [4, 4, 2]
    assert len(group_by_length(lengths)) == 1  # so few that padding is cheaper than another pass
    assert group_by_length([]) == []


def test_membership_and_first_occurrences() -> None:
    rows = torch.tensor([4, 2, 4, 9, 0])
    pairs = torch.tensor([[0, 4], [0, 0], [2, 9], [2, 2], [2, 7]])
    expected = [[1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0]]
    assert membership(pairs, 3, rows).int().tolist() == expected
    assert membership(pairs[:0], 3, rows).shape == (3, 5)
    assert membership(pairs, 3, rows[:0]).shape == (3, 0)
    assert first_occurrences(rows).int().tolist() == [1, 1, 0, 1, 1]
    assert first_occurrences(rows[:0]).shape == (0,)


# --- collator


def mixed_examples() -> list[Example]:
    """A captioned image, a text, an image without a caption, a negative, a document that two examples share."""
    captioned = DocumentInput(3, "a photo of the cat", image=toy_image(1))
    text = DocumentInput(5, "the tree is next to the big house and the small car and the boat")
    bare = DocumentInput(7, None, image=toy_image(2))
    other = DocumentInput(2, "bread", image=toy_image(3))
    return [
        Example("q0", "where is the red cat", [3], [3, 9], [captioned, text], ["a photo of the cat"]),
        Example("q1", "what is next to the house", [5], [5], [text, other]),
        Example("q2", "a red drawing", [7], [7], [bare], []),
    ]


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("chunk", [None, 1, 2])
@torch.no_grad()
def test_a_mixed_batch_embeds_as_encode_does(family: str, chunk: int | None) -> None:
    model = tiny_model(family)
    examples = mixed_examples()
    collator = Collator(
        model.processor, query_builder=ComplementaryQueryBuilder(model.processor.tokenizer), chunk_size=chunk
    )
    batch = collator(examples)
    assert batch.counts == (3, 2, 4, 3)
    assert batch.query_ids == ["q0", "q1", "q2"]
    assert batch.reduced.tolist() == [0, 2]
    assert batch.documents.tolist() == [3, 5, 2, 7]  # the shared one once
    assert batch.targets.tolist() == [[0, 3], [1, 5], [2, 7]]
    assert batch.relevant.tolist() == [[0, 3], [0, 9], [1, 5], [2, 7]]
    if chunk:
        assert max(len(group.input_ids) for group in batch.groups) == chunk
    embeddings, parts, _ = Embedder(model, "extracted")(batch.groups)
    queries, reduced, documents = embeddings.split(batch.counts[:3])
    inputs = {d.row: d for example in examples for d in example.documents}
    given = [{"text": inputs[row].text, "image": inputs[row].image} for row in batch.documents.tolist()]
    close: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-5}
    torch.testing.assert_close(queries, torch.tensor(model.encode([e.query for e in examples])), **close)
    torch.testing.assert_close(documents, torch.tensor(model.encode(given)), **close)
    torch.testing.assert_close(reduced[0], torch.tensor(model.encode("where is red")), **close)
    for part, row in zip(parts, batch.images.tolist(), strict=True):
        output = model(
            **model.processor(text=[inputs[row].text], images=[inputs[row].image]), image_only_from="extracted"
        )
        torch.testing.assert_close(part, output.image_embeddings[0], **close)
    assert (documents[0] - documents[2]).abs().max() > 1e-2


def test_a_batch_without_images_and_one_without_anything() -> None:
    model = tiny_model()
    collator = Collator(model.processor, query_builder=ComplementaryQueryBuilder(model.processor.tokenizer))
    batch = collator([Example("q", "what is next", [5], [5], [DocumentInput(5, "the tree")])])
    assert batch.counts == (1, 0, 1, 0)
    embeddings, parts, _ = Embedder(model, "extracted")(batch.groups)
    assert (embeddings.shape, parts.shape) == ((2, 32), (0, 32))
    nothing = collator([Example("q", "a query whose target is broken", [], [3], [], broken={"img-3": "why"})])
    assert nothing.counts == (0, 0, 0, 0)
    assert nothing.broken == {"img-3": "why"}
    embeddings, parts, scale = Embedder(model, "extracted")(nothing.groups)
    assert (len(embeddings), len(parts)) == (0, 0)
    assert scale.requires_grad


@torch.no_grad()
def test_no_position_is_padding_alone_and_length_is_cut() -> None:
    model = tiny_model()
    batch = Collator(model.processor, max_length=4)(mixed_examples())
    for group in batch.groups:
        assert group.attention_mask.any(dim=0).all()
    texts = [group for group in batch.groups if group.pixel_values is None]
    assert max(group.input_ids.shape[1] for group in texts) == 4


def test_prompts_stand_before_queries_and_texts() -> None:
    model = tiny_model()
    tokenizer = model.processor.tokenizer
    collator = Collator(model.processor, prompts={"query": "query : ", "document": "the "})
    batch = collator(mixed_examples())
    decoded = [""] * 9
    for group in batch.groups:
        for position, ids, mask in zip(group.positions, group.input_ids, group.attention_mask, strict=True):
            decoded[position] = tokenizer.decode(ids[mask.bool()])
    assert all(text.startswith("query : ") for text in decoded[:3])
    assert decoded[4].startswith("the the tree")
    assert decoded[3].endswith("caption: the a photo of the cat</s>") or "the a photo of the cat" in decoded[3]
    assert "the" not in decoded[6]  # an image alone has no text to put it before


def test_a_data_loader_pins_every_tensor_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batch: TrainingBatch = pin_memory(Collator(tiny_model().processor)(mixed_examples()))
    tensors = [value for part in (batch, *batch.groups) for value in vars(part).values()]
    found = {id(value) for value in tensors if isinstance(value, torch.Tensor)}
    assert found == {id(tensor) for tensor in pinned}
    assert any(group.pixel_values is not None for group in batch.groups)


# --- examples


def retrieval(
    broken: int = 0, content: str = "full", on_broken_image: str = "skip", **kwargs: Any
) -> tuple[RetrievalExamples, DocumentView]:
    data = training_data(broken=broken)
    view = DocumentView(data, content, on_broken_image=on_broken_image)
    return RetrievalExamples(data, view, **kwargs), view


def numbered(examples: RetrievalExamples, query: str) -> int:
    return next(i for i in range(len(examples)) if examples[SampleKey(0, 0, i)].query_id == query)


def test_an_example_draws_one_positive_and_knows_all() -> None:
    examples, view = retrieval()
    number = numbered(examples, "q-dog-red")
    drawn = [examples[SampleKey(0, epoch, number)] for epoch in range(20)]
    assert {view.ids[row] for example in drawn for row in example.targets} == {"img-1", "img-13"}
    for example in drawn:
        assert len(example.targets) == 1
        assert [view.ids[row] for row in example.relevant] == ["img-1", "img-13"]
        assert example.captions == ["a photo of the dog"] * 2
    assert examples[SampleKey(0, 3, number)].targets == drawn[3].targets  # a function of the draw
    assert examples[SampleKey(0, 0, numbered(examples, "q-txt-1"))].captions is None
    assert examples[SampleKey(0, 0, numbered(examples, "q-bare"))].captions == []


def test_hard_negatives_by_kind() -> None:
    negatives = {"q-dog-red": {"image": [2, 3, 4], "text": [26]}, "q-txt-0": {"image": [0], "text": []}}
    examples, _ = retrieval(negatives=negatives, counts={"image": 2, "text": 2})
    example = examples[SampleKey(0, 0, numbered(examples, "q-dog-red"))]
    rows = [document.row for document in example.documents]
    assert rows[0] in example.targets
    assert set(rows[1:3]) < {2, 3, 4}
    assert rows[3:] == [26]
    assert len(examples[SampleKey(0, 0, numbered(examples, "q-txt-0"))].documents) == 2
    assert len(examples[SampleKey(0, 0, numbered(examples, "q-cat-red"))].documents) == 1


@pytest.mark.parametrize(
    ("content", "kinds"),
    [("caption", {"caption"}), ("image", {"image", "text"}), ("full", {"captioned image", "image", "text"})],
)
def test_content_of_the_documents(content: str, kinds: set[str]) -> None:
    examples, _ = retrieval(content=content)
    found = [examples[SampleKey(0, 0, i)] for i in range(len(examples))]
    documents = [document for example in found for document in example.documents]
    text = "caption" if content == "caption" else "text"
    assert {("captioned image" if d.text else "image") if d.has_image else text for d in documents} == kinds
    names = {example.query_id for example in found}
    assert ("q-bare" in names) == (content != "caption")
    assert "q-txt-0" in names


def test_broken_images_are_named_or_fatal() -> None:
    examples, _ = retrieval(broken=2, on_broken_image="skip")
    number = numbered(examples, "q-cat-red")
    found = [examples[SampleKey(0, epoch, number)] for epoch in range(30)]
    assert {tuple(example.broken) for example in found} == {("img-0",), ()}
    assert all(bool(example.targets) != bool(example.broken) for example in found)
    examples, _ = retrieval(broken=2, on_broken_image="fail")
    with pytest.raises(ValueError, match="document 'img-0'"):
        [examples[SampleKey(0, epoch, number)] for epoch in range(30)]
    examples, _ = retrieval(broken=2, on_broken_image="caption")
    found = [examples[SampleKey(0, epoch, number)] for epoch in range(30)]
    assert {tuple(example.broken) for example in found} == {("img-0",), ()}
    assert all(example.targets for example in found)
    assert [e.documents[0].text for e in found if e.broken and not e.documents[0].has_image]
    assert not any(e.documents[0].has_image for e in found if e.broken)


def test_alignment_pairs_each_caption_with_its_image_alone() -> None:
    data = training_data()
    examples = AlignmentExamples(DocumentView(data, "image"))
    assert len(examples) == 24  # neither texts nor the image without a caption
    example = examples[SampleKey(0, 0, 1)]
    assert (example.query, example.targets, example.captions) == ("a photo of the dog", [1], None)
    assert (example.documents[0].text, example.documents[0].has_image) == (None, True)
    assert {data.corpus_ids[row] for row in example.relevant} == {f"img-{i}" for i in range(24) if i % 4 == 1}


def test_text_pairs_draw_words_of_a_text_anew() -> None:
    data = training_data()
    pairs = WarmUpExamples(DocumentView(data, "caption"))
    assert len(pairs) == 4 + len({row["text"] for row in data.corpus if row["image"] is None})
    found = [pairs[SampleKey(0, epoch, 0)] for epoch in range(10)]
    assert len({example.query for example in found}) > 3
    for example in found:
        assert set(example.query.split()) <= {"a", "photo", "of", "the", "cat"}
        assert example.query
        assert example.relevant == [0, 4, 8, 12, 16, 20]
    assert pairs[SampleKey(0, 4, 0)].query == found[4].query
    assert pairs[SampleKey(1, 4, 0)].query != found[4].query or pairs[SampleKey(1, 5, 0)].query != found[5].query
