"""A step that embeds all groups at once: the losses and gradients of one group after the other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch

from ciea_hf.retrieval.documents import DocumentInput
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.data.examples import Example
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.loss.objective import Objective
from ciea_hf.training.run.optim import build_optimizer, freeze, parameter_groups, set_dropout
from tests.support.helpers import WORDS, tiny_model, toy_image
from tests.support.toy_training import named_gradients

if TYPE_CHECKING:
    from ciea_hf.training.data.batch import TrainingBatch


def a_batch(processor: object, of_equal_length: bool) -> TrainingBatch:
    rng = random.Random(0)
    examples = []
    for row in range(6):
        caption, query = (" ".join(rng.choices(WORDS, k=rng.randint(2, 14))) for _ in range(2))
        image = None if row == 5 else toy_image(row)
        documents = [DocumentInput(row, caption, image), DocumentInput(10 + row, query)]
        examples.append(Example(str(row), query, [row], [row], documents, [caption] if image else None))
    builder = ComplementaryQueryBuilder(processor.tokenizer)  # type: ignore[attr-defined]
    return Collator(processor, query_builder=builder, of_equal_length=of_equal_length)(examples)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["t5", "bert"])
@pytest.mark.parametrize("frozen", [True, False])
def test_losses_and_gradients_are_those_of_separate_groups(family: str, frozen: bool) -> None:
    found = []
    for joined in (True, False):
        model = tiny_model(family)
        freeze(model, ["vision"] if frozen else [])
        for part in (model.text_model, model.extractor):
            set_dropout(part, 0.0)  # type: ignore[arg-type]
        embedder = Embedder(model, "extracted", gradient_cache=not joined).train()
        batch = a_batch(model.processor, of_equal_length=joined)
        objective = Objective({"contrastive": 1.0, "complementary": 0.5})
        loss = objective.total(objective(*embedder(batch.groups), batch))
        loss.backward()
        found.append((loss.detach(), named_gradients(model)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-5, rtol=1e-3, msg=name)


def test_groups_of_equal_length_have_hardly_any_padding() -> None:
    processor = tiny_model().processor
    padding = {}
    for choice in (True, False):
        masks = [group.attention_mask for group in a_batch(processor, choice).groups]
        padding[choice] = sum(int((mask == 0).sum()) for mask in masks)
        lengths = [length for mask in masks for length in mask.sum(dim=1).tolist()]
        assert len(lengths) == 6 * 3 + 5  # queries, texts and captions; reduced queries of five
    assert padding[True] < 0.2 * padding[False]


def test_fused_adamw_updates_as_the_plain_one() -> None:
    weights = []
    for fused in (True, False):
        model = tiny_model()
        freeze(model, ["vision"])
        optimizer = build_optimizer(parameter_groups(model, 1e-3, 1e-2, 0.2), (0.9, 0.98), 1e-6, fused)
        assert bool(optimizer.defaults["fused"]) == fused
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert trained.isdisjoint(id(p) for p in model.vision_model.parameters())
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-6, rtol=1e-5, msg=name)
