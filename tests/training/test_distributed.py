"""Several gloo processes compute what one process computes on the same global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.support.distributed_training import (
    PLAIN,
    SCENARIOS,
    Scenario,
    all_scenarios,
    global_batch,
    make_embedder,
    train,
)
from tests.support.processes import in_processes

if TYPE_CHECKING:
    from pathlib import Path

Results = dict[str, list[dict[str, Any]]]
TOLERANCE = {"float64": 1e-6, "float32": 1e-5}
WEIGHTS_TOLERANCE = {"float64": 1e-6, "float32": 3e-5}  # AdamW magnifies the rounding of gradients near 0


@pytest.fixture(scope="module", params=[2, 3])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results by scenario and rank."""
    folder: Path = tmp_path_factory.mktemp("processes")
    in_processes(request.param, folder, all_scenarios)
    return {
        name: [torch.load(folder / f"{number}-{rank}.pt", weights_only=True) for rank in range(request.param)]
        for number, name in enumerate(SCENARIOS)
    }


@pytest.fixture(scope="module")
def one() -> dict[str, dict[str, Any]]:
    return {name: train(scenario) for name, scenario in SCENARIOS.items()}


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.parametrize("name", ["fp64", "fp32", "alignment", "words", "reverse", "empty rank", "margin", "cached"])
@pytest.mark.parametrize("what", ["losses", "gradients", "weights"])
def test_several_processes_equal_one(several: Results, one: dict[str, dict[str, Any]], name: str, what: str) -> None:
    for result in several[name]:
        limits = WEIGHTS_TOLERANCE if what == "weights" else TOLERANCE
        assert largest_difference(result[what], one[name][what]) < limits[SCENARIOS[name].dtype]


def test_the_comparison_is_not_vacuous(several: Results, one: dict[str, dict[str, Any]]) -> None:
    expected = one["fp64"]
    idle = {name for name, gradient in expected["gradients"].items() if gradient.abs().max() < 1e-6}
    # softmax does not see a bias of all keys, nor attention over the decoder's only token what it attends by
    assert all("k_proj.bias" in name or ("decoder" in name and "SelfAttention" in name) for name in idle)
    assert largest_difference(train(PLAIN)["weights"], expected["weights"]) == 0.0  # one process repeats itself
    for result in several["not gathered"]:
        assert largest_difference(result["gradients"], expected["gradients"]) > 1e-3
        assert largest_difference(result["weights"], expected["weights"]) > 1e-4
    images = [result["images"] for result in several["fp64"]]
    assert min(images) == 0 if len(images) == 3 else images[0] < images[1]
    assert several["empty rank"][-1]["images"] == 0
    assert expected["losses"].keys() == {"contrastive", "complementary"}


def test_gradient_caching_gives_the_gradients_of_the_plain_step(
    several: Results, one: dict[str, dict[str, Any]]
) -> None:
    """Dropout on: the random state is restored when a group is embedded again."""
    for results in ([one[n] for n in ("dropout, in groups of 2", "dropout, cached")],
                    *zip(several["dropout, in groups of 2"], several["dropout, cached"], strict=True)):  # fmt: skip
        plain, cached = results
        for what in ("losses", "gradients", "weights"):
            assert largest_difference(plain[what], cached[what]) < 1e-5, what
    dropped, whole = one["dropout"], one["fp32"]
    assert largest_difference(dropped["gradients"], whole["gradients"]) > 1e-3  # dropout is on


def test_a_cached_step_synchronises_once(several: Results) -> None:
    for plain, cached in zip(several["dropout, in groups of 2"], several["dropout, cached"], strict=True):
        assert plain["syncs"] == cached["syncs"] > 0


def kept_bytes(scenario: Scenario) -> int:
    """Bytes that a forward pass keeps for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    embedder, collator = make_embedder(scenario)
    batch = collator(global_batch(0, scenario))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedder(batch.groups)
    weights = {parameter.untyped_storage().data_ptr() for parameter in embedder.parameters()}
    return sum(size for pointer, size in kept.items() if pointer not in weights)


def test_a_cached_step_keeps_next_to_nothing() -> None:
    plain, cached = (kept_bytes(SCENARIOS[name]) for name in ("dropout, in groups of 2", "dropout, cached"))
    assert plain > 1_000_000
    assert cached < plain / 100
