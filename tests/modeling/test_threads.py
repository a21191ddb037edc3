"""Several threads on one model or processor."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ciea_hf.modeling.evaluation_mode_ciea import evaluating
from tests.support.helpers import TEXT_FAMILIES, tiny_model, tiny_processor, toy_image

WORDS = ["a", "red", "cat", "and", "the", "small", "dog", "under", "the", "old", "tree"]


def long_inputs(seed: int) -> list[object]:
    rng = np.random.default_rng(seed)
    inputs: list[object] = []
    for number in range(12):
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(1, 60))))
        inputs.append(text if number % 2 else {"text": text, "image": toy_image(number)})
    return inputs


def test_eight_threads_give_what_one_gives() -> None:
    model = tiny_model()
    model.processor.tokenizer.model_max_length = 24
    batches = [long_inputs(seed) for seed in range(24)]
    expected = [model.encode(batch, batch_size=4) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: model.encode(batch, batch_size=4), batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_truncation_equals_that_of_the_tokenizer(text: str) -> None:
    processor = tiny_processor(text)
    texts = [" ".join(WORDS * count) for count in (0, 1, 3)] + ["cat"]
    texts[0] = "dog"
    for limit in (3, 4, 7, 20, 200):
        own = processor.tokenize(texts, [False] * 4, max_length=limit, padding=False, return_tensors=None)["input_ids"]
        theirs = processor.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        assert own == theirs, limit


def test_a_tokenization_leaves_no_state_in_the_tokenizer() -> None:
    processor = tiny_processor("t5")
    before = processor.tokenizer.backend_tokenizer.to_str()
    processor(text=["a red cat " * 40, None], images=[None, toy_image()], max_length=9)
    assert processor.tokenizer.backend_tokenizer.to_str() == before


def test_overlapping_blocks_restore_the_mode_of_every_part() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2))
    model.train()
    model[1].eval()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with evaluating(model):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with evaluating(model):
        assert not model[0].training
    assert not model[0].training, "the other block still runs"
    leave.set()
    thread.join()
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_an_error_restores_the_mode() -> None:
    model = tiny_model().train()
    with pytest.raises(ValueError, match="input 0: the text is empty"):
        model.encode([""])
    assert model.training
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training
