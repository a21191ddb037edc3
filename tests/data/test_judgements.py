"""Files of judgements: one form per file, headers by name, and lines that deviate."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from ciea_hf.data.judgements import judgements
from ciea_hf.evaluation.runs import read_qrels, read_run

if TYPE_CHECKING:
    from pathlib import Path


EXPECTED = {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}


@pytest.mark.parametrize(
    "content",
    [
        "q1 d1 2\nq1 d2 0\nq2 d3 1\n",
        "q1\td1\t2\nq1\td2\t0\nq2\td3\t1\n",
        "q1 0 d1 2\nq1 0 d2 0\nq2 Q0 d3 1\n",
        "q1 0 d1 2 7\nq1 0 d2 0 7\nq2 0 d3 1 9\n",
        "query-id\tcorpus-id\tscore\r\nq1\td1\t2\r\n\r\nq1\td2\t0\r\nq2\td3\t1",
        "\ufeffcorpus-id query-id score\nd1 q1 2\nd2 q1 0\nd3 q2 1\n",
        "# version 2\nq1 d1 2.0\nq1 d2 0.0\n# more\nq2 d3 1.\n",
        "qid\tdocid\trelevance\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n",
        "query_id\tdoc_id\tRel\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n",
        "\tquery-id\tcorpus-id\tScore\n0\tq1\td1\t2\n1\tq1\td2\t0\n2\tq2\td3\t1\n",
        "  q1   d1 \t 2\nq1 d2 0\nq2 d3 1\n",
    ],
)
def test_forms_that_are_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "qrels").write_bytes(content.encode())
    assert read_qrels(tmp_path / "qrels") == EXPECTED
    (tmp_path / "qrels.tsv.gz").write_bytes(gzip.compress(content.encode()))
    assert read_qrels(tmp_path / "qrels.tsv.gz") == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1\td1\t2\nq13   0\tt5\t1\n", ":2: 'q13   0': an id contains several blanks"),
        ("q1\t0\td1\t2\nq13   0\tt5\t1\n", ":2: a judgement must have 4 columns separated by tabs, as above; got 3"),
        ("1 New York 1\n", ":1: '1': the second of 4 columns must be 0, Q0 or another number; got 'New'"),
        ("q1 0 d1 1\nq2 d3 1\n", ":2: a judgement must have 4 columns separated by blanks, as above; got 3"),
        ("q1\td1\t1\nq1\t\t1\n", ":2: 'q1': a judgement must have a query and a document; one of them is empty"),
        ("q1 d1 1\nq1\u00a0d2 1\n", ":2: a judgement must have 3 columns separated by blanks, as above; got 2"),
        ("q1 d1 0.5\n", ":1: 'q1': '0.5' is not an integer"),
        ("q1 d1 nan\n", ":1: 'q1': 'nan' is not an integer"),
        ("q1 d1 1e9\n", ":1: 'q1': '1e9' is not an integer"),
        ("q1 d1\n", ":1: a judgement must have 3, 4 or 5 columns; got 2"),
        ("q1 d1 1\nq1 d1 2\n", ":2: document 'd1' has two different judgements for query 'q1'"),
    ],
)
def test_lines_that_deviate_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "qrels").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_qrels(tmp_path / "qrels")
    found = str(caught.value).removeprefix(str(tmp_path / "qrels"))
    assert (
        found.replace("'q13   0': ", "")
        .replace("'q1': ", "")
        .replace("'1': ", "")
        .startswith(message.replace("'q13   0': ", "").replace("'q1': ", "").replace("'1': ", ""))
    )


def test_ids_with_spaces_need_tabs(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q 1\tNew York\t1\n")
    assert read_qrels(tmp_path / "qrels") == {"q 1": {"New York": 1}}


def test_json_lines_of_judgements(tmp_path: Path) -> None:
    rows = [{"query-id": 1, "corpus-id": "d1", "score": 2.0}, {"query_id": "2", "corpus_id": "d2"},
            {"query-id": "1", "corpus-id": "d3", "score": "x"}, {"query-id": "1"}]  # fmt: skip
    file = tmp_path / "qrels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    issues: list[str] = []
    found = list(
        judgements(file, lambda _kind, location, _name, message: issues.append(f"{location.number}: {message}"))
    )
    assert [tuple(judgement[1:]) for judgement in found] == [("1", "d1", 2), ("2", "d2", 1)]
    assert issues == [
        "3: 'score' must be an integer; got 'x'",
        "4: 'corpus-id' must be a text or a number; got query-id",
    ]


def test_runs_with_text_after_the_tag_and_compressed(tmp_path: Path) -> None:
    content = "q1 Q0 d1 1 0.5 my run\nq1 Q0 d2 2 0.25 my run with more\n"
    (tmp_path / "a.run").write_text(content)
    (tmp_path / "a.run.gz").write_bytes(gzip.compress(content.encode()))
    assert read_run(tmp_path / "a.run") == read_run(tmp_path / "a.run.gz") == {"q1": {"d1": 0.5, "d2": 0.25}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.run", "q1 Q0 d1 1 0.5 x\n".encode("utf-16"), r"a\.run:1: the line is not UTF-8 \(it looks like UTF-16\)"),
        ("a.run", "q1 Q0 caf\u00e9 1 0.5 x\n".encode("latin-1"), r"a\.run:1: the line is not UTF-8"),
        ("a.json", b"{}", r"a run must be a TREC file .*, not \.json"),
        ("a.parquet", b"PAR1", r"a run must be a TREC file .*, not \.parquet"),
        ("a.run.gz", gzip.compress(b"q1 Q0 d1 1 0.5 x\n" * 50)[:30], r"a\.run\.gz:\d+: cannot be read from here"),
        ("a.run", b"q1 Q0 d1 1 nan x\n", r"a\.run:1: 'nan' is not a score"),
    ],
)
def test_runs_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / name)
