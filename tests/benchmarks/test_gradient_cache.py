"""Tests of the benchmark of gradient caching at a small size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gradient_cache


@pytest.mark.parametrize(("chunk", "groups"), [(None, 3), (4, 9)])
def test_batch_numbers_queries_then_reduced_queries_then_images(chunk: int | None, groups: int) -> None:
    batch = gradient_cache.make_batch(10, chunk)
    assert len(batch.groups) == groups
    assert torch.cat([group.positions for group in batch.groups]).tolist() == list(range(30))
    assert [group.has_image for group in batch.groups] == [False] * (2 * groups // 3) + [True] * (groups // 3)
    assert batch.counts == (10, 10, 10, 10)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="the peak memory is reset through /proc")
def test_step_is_measured_with_and_without_caching() -> None:
    settings = [gradient_cache.Setting(batch=8, chunk=chunk, width=16, layers=1) for chunk in (None, 4)]
    plain, cached = (gradient_cache.measure(setting) for setting in settings)
    assert plain.seconds > 0
    assert plain.inputs == pytest.approx(cached.inputs) == pytest.approx(8 * 3 * 112 * 112 * 4 / 2**20, rel=0.02)
    page = gradient_cache.page([(8, plain._replace(peak=3), cached._replace(peak=2))], settings[1], ["--batches", "8"])
    assert "chunks of 4 rows" in page
    assert "`python -m benchmarks.gradient_cache --batches 8`" in page
    assert page.splitlines()[-1] == "With caching, the highest peak is 0% above the lowest."
