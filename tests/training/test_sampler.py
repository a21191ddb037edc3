"""The order of training examples, over processes and resumes."""

from __future__ import annotations

from itertools import islice

import pytest

from ciea_hf.training.data.sampler import ResumableBatchSampler


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_batches_are_the_same_for_any_number_of_processes(processes: int) -> None:
    whole = list(islice(ResumableBatchSampler(23, 5, seed=3), 12))
    parts = [
        list(islice(ResumableBatchSampler(23, 5, 3, rank=rank, processes=processes), 12)) for rank in range(processes)
    ]
    joined = [[draw for part in parts for draw in part[i]] for i in range(12)]
    assert joined == whole
    assert {len(batch) for batch in whole} == {5}


def test_an_epoch_holds_each_example_once_and_has_its_own_order() -> None:
    sampler = ResumableBatchSampler(20, 5, seed=3)
    batches = list(islice(sampler, 8))
    epochs = [[draw for batch in batches[i : i + 4] for draw in batch] for i in (0, 4)]
    for number, epoch in enumerate(epochs):
        assert sorted(draw.number for draw in epoch) == list(range(20))
        assert {draw.epoch for draw in epoch} == {number}
    assert [draw.number for draw in epochs[0]] != [draw.number for draw in epochs[1]]
    assert list(islice(ResumableBatchSampler(20, 5, seed=4), 1)) != batches[:1]


@pytest.mark.parametrize("start", [0, 1, 4, 7])
def test_the_stream_can_be_entered_anywhere(start: int) -> None:
    whole = list(islice(ResumableBatchSampler(22, 5, seed=3), 12))
    assert list(islice(ResumableBatchSampler(22, 5, seed=3, start=start), 12 - start)) == whole[start:]


def test_too_few_examples_or_places_are_named() -> None:
    with pytest.raises(ValueError, match="`batch_size` is 8, but there are only 7 training examples"):
        ResumableBatchSampler(7, 8, seed=0)
    with pytest.raises(ValueError, match="`batch_size` must be at least the number of processes, 3; got 2"):
        ResumableBatchSampler(7, 2, seed=0, processes=3)
