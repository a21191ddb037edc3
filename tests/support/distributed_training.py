"""The computation of one process of a distributed test, in every scenario."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from ciea_hf.retrieval.documents import DocumentInput
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.data.examples import Example
from ciea_hf.training.loss import objective as objective_module
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.loss.objective import Objective, mean_over_processes
from ciea_hf.training.loss.word_alignment import WordAligner, WordObjective
from ciea_hf.training.run.optim import build_optimizer, parameter_groups
from ciea_hf.training.run.stage_inputs import special_tokens
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("cat", "dog", "house", "tree", "car", "boat", "apple", "bread", "hammer", "tower")


@dataclass(frozen=True)
class Scenario:
    """A configuration of training that is compared across numbers of processes.

    Attributes:
        dtype: Number type of the model.
        steps: Number of training steps.
        weights: Weights of the losses.
        empty_rank: Whether the examples of the last process have no readable target.
        chunk: Chunk size of gradient caching; negative to group without caching.
        gathering: Whether the objective gathers; without it the comparison has to fail.
        dropout: Whether dropout is on.
        margin: Margin against false negatives.
    """

    dtype: str = "float64"
    steps: int = 2
    weights: tuple[tuple[str, float], ...] = (("contrastive", 1.0), ("complementary", 0.3))
    empty_rank: bool = False
    chunk: int | None = None
    gathering: bool = True
    dropout: bool = False
    margin: float | None = None


PLAIN = Scenario(steps=5)
SCENARIOS = {
    "fp64": PLAIN,
    "fp32": Scenario(dtype="float32", steps=5),
    "alignment": Scenario(weights=(("alignment", 1.0),)),
    "words": Scenario(weights=(("words", 1.0),)),
    "reverse": Scenario(weights=(("contrastive", 1.0), ("reverse", 0.5), ("complementary", 0.3))),
    "empty rank": Scenario(empty_rank=True),
    "margin": Scenario(margin=0.05),
    "cached": Scenario(chunk=2),
    "not gathered": Scenario(gathering=False),
    "dropout": Scenario(dtype="float32", dropout=True),
    "dropout, in groups of 2": Scenario(dtype="float32", dropout=True, chunk=-2),  # grouped, not cached
    "dropout, cached": Scenario(dtype="float32", dropout=True, chunk=2),
}


def global_batch(step: int, scenario: Scenario) -> list[Example]:
    """Twelve examples: texts alone for the first third, then images with more and fewer hard negatives.

    One document is the positive of two queries, one is a negative of another process, one query has several positives,
    and one negative is relevant to another query.
    """

    def image(row: int) -> DocumentInput:
        return DocumentInput(row, f"a photo of the {WORDS[row % 10]}" if row % 5 else None, image=toy_image(row))

    def text(row: int) -> DocumentInput:
        return DocumentInput(
            row, f"the {WORDS[row % 10]} is next to the {WORDS[row // 10 % 10]}" + " and bread" * (row % 3)
        )

    if scenario.weights[0][0] in ("alignment", "words"):
        rows = [step + i for i in range(12)]
        return [
            Example(f"q{row}", f"a {WORDS[row % 10]}", [row], [row], [replace(image(row), text=None)]) for row in rows
        ]
    examples = []
    for i in range(4):
        row = 200 + step + i
        documents = [text(row), *(text(row + 10 * (j + 1)) for j in range(i % 2))]
        examples.append(Example(f"q{i}", f"what is next to the {WORDS[i]}", [row], [row, 201 + step], documents))
    for i in range(4, 12):
        row = 7 * step + (i if i != 9 else 8)  # two queries share a positive
        negatives = [image(7 * step + 20 + (i + j) % 7) for j in range(i % 3)] + [text(202 + step)] * (i % 2)
        captions = [f"a photo of the {WORDS[row % 10]}"]
        relevant = [row, 7 * step + 20 + i % 7]
        examples.append(
            Example(f"q{i}", f"where is the red {WORDS[row % 10]}", [row], relevant, [image(row), *negatives], captions)
        )
    return examples


def share(examples: list[Example], scenario: Scenario, rank: int, world: int) -> list[Example]:
    """The contiguous part of a process; with an empty rank, the other processes share the rest."""
    if scenario.empty_rank:
        kept = examples[: len(examples) * 2 // 3]
        if world == 1:
            return kept
        if rank == world - 1:
            return [
                replace(example, targets=[], documents=[], broken={"x": "why"}) for example in examples[len(kept) :]
            ]
        world -= 1
        examples = kept
    bounds = [len(examples) * i // world for i in range(world + 1)]
    return examples[bounds[rank] : bounds[rank + 1]]


def make_embedder(scenario: Scenario) -> tuple[Embedder, Collator]:
    """Make the embedder and the collator of its batches."""
    model = tiny_model(seed=1).to(getattr(torch, scenario.dtype)).train(scenario.dropout)
    chunk = abs(scenario.chunk) if scenario.chunk else None
    collator = Collator(
        model.processor, query_builder=ComplementaryQueryBuilder(model.processor.tokenizer), chunk_size=chunk
    )
    part = "extracted" if "complementary" in dict(scenario.weights) else None
    cached = scenario.chunk is not None and scenario.chunk > 0
    embedder: Any = Embedder(model, part, gradient_cache=cached)  # type: ignore[arg-type]
    if chunk and not cached:  # one group after the other, as caching does, so that dropout draws the same numbers
        embedder._embed_groups = lambda groups: map(embedder._embed_group, groups)
    return embedder, collator


def train(scenario: Scenario, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Take a few steps; return the first step's losses and gradients, the last weights, and how often DDP synced."""
    made, collator = make_embedder(scenario)
    model = made.model
    embedder: nn.Module = made
    objective: Any
    if "words" in dict(scenario.weights):
        embedder, objective = WordAligner(model, special_tokens(model)), WordObjective(30.0)
    else:
        objective = Objective(dict(scenario.weights), scenario.margin)
    syncs = [0]
    if world > 1:
        embedder = nn.parallel.DistributedDataParallel(embedder, find_unused_parameters=True)
        embedder.register_comm_hook(syncs, _count)
    optimizer = build_optimizer(parameter_groups(model, 5e-4, 1e-3, 0.1), (0.9, 0.98), 1e-6)
    result: dict[str, Any] = {}
    for step in range(scenario.steps):
        torch.manual_seed(100 * step + rank)
        batch = collator(share(global_batch(step, scenario), scenario, rank, world))
        losses = objective(*embedder(batch.groups), batch)
        objective.total(losses).backward()
        if step == 0:
            result["images"] = len(batch.images)
            result["losses"] = {name: mean_over_processes(value.detach().clone()) for name, value in losses.items()}
            result["gradients"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            result["syncs"] = syncs[0]
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    result["weights"] = {name: tensor.clone() for name, tensor in model.named_parameters()}
    return result


def _count(state, bucket):  # type: ignore[no-untyped-def]  # DDP cannot read annotations that are strings
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    state[0] += 1
    return allreduce_hook(dist.group.WORLD, bucket)  # type: ignore[arg-type]


def all_scenarios(rank: int, world: int, folder: Path) -> None:
    """Compute every scenario in one of the processes and save the results."""
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        module: Any = objective_module
        gather = module.gather
        if not scenario.gathering:
            module.gather = lambda tensor, sizes: tensor
        try:
            torch.save(train(scenario, rank, world), folder / f"{number}-{rank}.pt")
        except Exception as error:
            raise RuntimeError(f"scenario {name!r}") from error
        finally:
            module.gather = gather
