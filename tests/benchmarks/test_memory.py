"""Tests of the benchmark of large corpora at a small size, and of its memory measurement."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import large_corpus
from benchmarks.common.memory import AnonymousPeak, resident

linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")


@linux
def test_peak_includes_allocated_memory_but_not_mapped_files(tmp_path: Path) -> None:
    np.save(tmp_path / "mapped.npy", np.ones(2**23))  # 64 MB
    before = resident("RssAnon")
    with AnonymousPeak() as mapped:
        assert np.load(tmp_path / "mapped.npy", mmap_mode="r").sum() == 2**23
        time.sleep(0.2)
    with AnonymousPeak() as allocated:
        held = np.ones(2**23)
        time.sleep(0.2)
    assert mapped.bytes - before < 2**25 < allocated.bytes - before
    del held


@linux
def test_queries_find_their_documents_among_random_directions() -> None:
    result = large_corpus.measure(large_corpus.Setting(documents=400, queries=50, width=32))
    assert result.mrr > 0.95
    assert result.disk == 400 * 32 * 2
    page = large_corpus.page({400: result}, 50, 32)
    assert f" {result.mrr:.3f} |" in page.splitlines()[-1]
