"""The host queues forward passes without waiting for the device; `tests/training/test_synchronisations.py` says how."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ciea_hf.modeling import encoding_ciea
from ciea_hf.modeling.transfers_ciea import Lead, pin
from tests.support.helpers import tiny_model, toy_image

META = torch.device("meta")


def test_encode_reads_no_value_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With T5; in transformers' code of other language models the host looks whether anything is padded."""
    model = tiny_model().to(META)  # type: ignore[arg-type]
    monkeypatch.setattr(encoding_ciea, "input_device", lambda _: META)
    monkeypatch.setattr(encoding_ciea, "check_finite", lambda _: None)
    inputs: list[Any] = ["a red cat", {"text": "the house", "image": toy_image(1)}, toy_image(2), "a dog"]
    assert model.encode(inputs, batch_size=1, convert_to_tensor=True).shape == (4, 32)


def test_forward_reads_no_value_if_its_inputs_have_been_checked() -> None:
    model = tiny_model().to(META)  # type: ignore[arg-type]
    inputs = model.processor(text=["a cat", None], images=[toy_image(1), toy_image(2)])
    moved = {name: tensor.to(META) for name, tensor in inputs.items()}
    options: dict[str, Any] = {"image_only_from": "extracted", "output_patches": True}
    output = model(**moved, check_placeholders=False, **options)
    assert output.embeddings.shape == output.image_embeddings.shape == (2, 32)
    with pytest.raises(RuntimeError, match="meta"):
        model(**moved, **options)


def test_encode_checks_placeholders_before_it_copies() -> None:
    model = tiny_model()
    model.processor.image_seq_length -= 1
    with pytest.raises(ValueError, match=r"images and placeholders do not match: 1 image\(s\) of 4 patches"):
        model.encode({"text": "a cat", "image": toy_image(1)})


def test_inputs_of_a_gpu_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    inputs = tiny_model().processor(text=["a cat"], images=[toy_image(1)])
    assert pin(inputs, torch.device("cpu")) is inputs
    assert not pinned
    assert {id(tensor) for tensor in pin(inputs, torch.device("cuda")).values()} == {id(tensor) for tensor in pinned}
    assert len(pinned) == len(inputs) == 3


def test_the_host_is_at_most_two_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[FakeEvent] = []

    class FakeEvent:
        def __init__(self) -> None:
            self.waited = False
            events.append(self)

        def record(self, _stream: object) -> None:
            pass

        def synchronize(self) -> None:
            self.waited = True

    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    lead = Lead(torch.device("cuda"))
    for number in range(1, 6):
        lead.submitted()
        assert [event.waited for event in events] == [True] * max(number - 2, 0) + [False] * min(number, 2)
    Lead(torch.device("cpu")).submitted()
    assert len(events) == 5
