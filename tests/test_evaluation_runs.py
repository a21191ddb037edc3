from __future__ import annotations

import numpy as np
import pytest

from ciea_hf.evaluation.runs import read_run, write_run

pytrec_eval = pytest.importorskip("pytrec_eval")


def test_a_run_comes_back_whole_and_is_read_by_trec_eval(tmp_path):
    scores = np.random.default_rng(0).normal(size=5).astype(np.float32)
    run = {"q1": {f"d{i}": float(s) for i, s in enumerate(scores)}, "q2": {"ö": 1.0, "b": 1.0}}
    write_run(run, tmp_path / "a.run", tag="my system")
    found = read_run(tmp_path / "a.run")
    with (tmp_path / "a.run").open() as file:
        assert pytrec_eval.parse_run(file) == found
    assert {q: {d: np.float32(s) for d, s in row.items()} for q, row in found.items()} == run
    lines = (tmp_path / "a.run").read_text().splitlines()
    assert lines[-2:] == ["q2 Q0 ö 1 1 my-system", "q2 Q0 b 2 1 my-system"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 0.5", r":2: a run has 6 columns .* got 5"),
        ("q Q0 d 1 high tag", ":2: 'high' is no score"),
        ("q Q0 d 1 nan tag", ":2: 'nan' is no score"),
        ("q Q0 first 1 0.5 tag", ":2: document 'first' occurs twice for query 'q'"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, message):
    (tmp_path / "b.run").write_text(f"q Q0 first 1 0.9 tag\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "b.run")


def test_ids_that_the_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="'a b'"):
        write_run({"q": {"a b": 1.0}}, tmp_path / "c.run")
    assert not (tmp_path / "c.run").exists()
