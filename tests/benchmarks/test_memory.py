"""The benchmark of large corpora, at a small size, and what watches its memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import large_corpus
from benchmarks.common.memory import AnonymousPeak, resident

linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read as Linux tells it")


@linux
def test_the_peak_of_anonymous_memory_is_seen_and_files_do_not_count(tmp_path):
    np.save(tmp_path / "mapped.npy", np.ones(2**23))  # 64 MB
    before = resident("RssAnon")
    with AnonymousPeak() as mapped:
        assert np.load(tmp_path / "mapped.npy", mmap_mode="r").sum() == 2**23
        time.sleep(0.2)
    with AnonymousPeak() as taken:
        held = np.ones(2**23)
        time.sleep(0.2)
    assert mapped.bytes - before < 2**25 < taken.bytes - before
    del held


@linux
def test_the_right_document_is_found_among_random_directions():
    figure = large_corpus.measure(large_corpus.Setting(documents=400, queries=50, width=32))
    assert figure.mrr > 0.95
    assert figure.kept == 400 * 32 * 2
    page = large_corpus.page({400: figure}, 50, 32)
    assert f"| {figure.mrr:.3f} |" in page.splitlines()[-1]
