"""The host queues a training step without waiting for the device.

Tensors on torch's device `meta` have shapes and no values. Whatever makes the host wait for a GPU, such as reading a
value or asking for a size that depends on values, is an error there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from ciea_hf.retrieval.documents import DocumentInput
from ciea_hf.training.data.batch import TrainingBatch, first_occurrences, membership
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.data.examples import Example
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.loss.objective import Objective
from ciea_hf.training.run.optim import build_optimizer, freeze, parameter_groups
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.run.trainer import Trainer
from tests.support.helpers import tiny_model, toy_image
from tests.support.toy_training import configured

if TYPE_CHECKING:
    from pathlib import Path

READING = {"tolist", "item", "__float__", "__bool__", "__int__", "numpy", "cpu"}
META = torch.device("meta")


def examples() -> list[Example]:
    found = []
    for row in range(3):
        documents = [DocumentInput(row, "a photo of the cat", toy_image(row)), DocumentInput(9, "the house")]
        found.append(Example(str(row), "where is the red cat", [row], [row], documents, ["a photo of the cat"]))
    return found


def pairs_of(rows: torch.Tensor) -> TrainingBatch:
    pairs = torch.stack([torch.arange(len(rows)), rows], dim=1)
    ids = [str(number) for number in range(len(rows))]
    return TrainingBatch([], ids, torch.arange(len(rows)), rows, rows, pairs, pairs)


def test_a_training_step_reads_no_value() -> None:
    model = tiny_model()
    freeze(model, ["vision"])
    batch = Collator(model.processor, query_builder=ComplementaryQueryBuilder(model.processor.tokenizer))(examples())
    model.to(META)  # type: ignore[arg-type]
    embedder = Embedder(model, "projected").train()
    optimizer = build_optimizer(parameter_groups(model, 1e-5, None, 0.2), (0.9, 0.98), 1e-6)
    objective = Objective({"contrastive": 1.0, "complementary": 0.1})
    moved = batch.to(META)
    with torch.no_grad():  # group by group
        embedder(moved.groups)
    objective.total(objective(*embedder(moved.groups), moved)).backward()
    torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    optimizer.step()
    assert model.projector.weight.grad is not None
    assert any(group.has_image for group in batch.groups)


class Reads(TorchFunctionMode):
    """Counts how often values are read from tensors of floating-point numbers, which are on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READING and args[0].is_floating_point():
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_step_of_several_batches_reads_once(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, counts = Trainer._step, []

    def counted(self: Trainer, batches: Any) -> bool:
        with Reads() as reads:
            terminated = step(self, batches)
        counts.append(reads.count)
        return terminated

    monkeypatch.setattr(Trainer, "_step", counted)
    run_stages(configured(toy, tmp_path / "run", gradient_accumulation_steps=2, log_steps=3))
    assert counts == [1, 1, 2, 1]  # the logarithm of the scale is read for the loss log


def test_groups_are_checked_before_they_are_copied() -> None:
    model = tiny_model()
    batch = Collator(model.processor)(examples())
    group = next(group for group in batch.groups if group.pixel_values is not None)
    group.pixel_values = group.pixel_values[:1]  # type: ignore[index]
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), pytest.raises(ValueError, match="images and placeholders do not match"):
            Embedder(model)(batch.groups)


def test_losses_read_no_value() -> None:
    batch = pairs_of(torch.tensor([7, 3, 5])).to(META)
    embeddings = torch.empty(9, 8, device=META, requires_grad=True)
    images = torch.empty(3, 8, device=META, requires_grad=True)
    objective = Objective({"contrastive": 1.0, "reverse": 0.5, "complementary": 0.1}, false_negative_margin=0.1)
    loss = objective.total(objective(embeddings, images, torch.empty((), device=META), batch))
    loss.backward()
    assert embeddings.grad is not None
    assert images.grad is not None
    with pytest.raises(RuntimeError, match="meta"):  # as the host would have to wait for it
        loss.item()


def test_rows_of_a_large_corpus_are_told_apart() -> None:
    rows = torch.tensor([2**31, 0, 2**32 - 1, 2**31])
    pairs = torch.tensor([[0, 2**32 - 1], [1, 0], [2, 2**31]])
    assert membership(pairs, 3, rows).int().tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1]]
    assert first_occurrences(rows).int().tolist() == [1, 1, 1, 0]
