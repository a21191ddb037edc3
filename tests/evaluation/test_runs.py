from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ciea_hf.evaluation.runs import read_qrels, read_run, write_run

if TYPE_CHECKING:
    from pathlib import Path

import pytrec_eval


def test_a_run_comes_back_whole_and_is_read_by_trec_eval(tmp_path: Path) -> None:
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
        (
            "q Q0 d 1 0.5",
            r":2: a run must have 6 columns .* got 5",
        ),
        (
            "q Q0 d 1 high tag",
            ":2: 'high' is not a score",
        ),
        (
            "q Q0 d 1 nan tag",
            ":2: 'nan' is not a score",
        ),
        ("q Q0 first 1 0.5 tag", ":2: document 'first' occurs twice for query 'q'"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "b.run").write_text(f"q Q0 first 1 0.9 tag\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "b.run")


def test_ids_that_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a b'"):
        write_run({"q": {"a b": 1.0}}, tmp_path / "c.run")
    assert not (tmp_path / "c.run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "q1\td1\t1\nq1\td2\t0\n\nq2\td1\t2\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td1\t2\n",
        "\ufeffq1 0 d1 1\nq1 0 d2 0\nq2 0 d1 2\n",
        "q1 0 d1 1 4\nq1 0 d2 0 4\nq2 0 d1 2 4\nq2 0 d1 2 4\n",
    ],
)
def test_judgements_are_read_in_every_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}


def test_ids_between_tabs_may_hold_blanks(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q 1\tnew york\t1\nq 2\tyork\t0\n")
    assert read_qrels(tmp_path / "qrels") == {"q 1": {"new york": 1}, "q 2": {"york": 0}}
    (tmp_path / "a.run").write_text("\ufeffq Q0 d 1 0.5 tag\n", encoding="utf-8")
    assert read_run(tmp_path / "a.run") == {"q": {"d": 0.5}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q d", ":2: a judgement must have 4 columns separated by blanks, as above; got 2"),
        ("q 0 d yes", "'yes'"),
        (
            "q 0 d 2",
            ":2: document 'd' has two different",
        ),
    ],
)
def test_broken_judgements_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "qrels").write_text(f"q 0 d 1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_qrels(tmp_path / "qrels")
