"""TREC files: runs (``query Q0 document rank score tag``) and judgements (``query 0 document relevance``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.evaluation.metrics import rank_documents
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    import os

    from ciea_hf.evaluation.metrics import Run

_RUN_COLUMNS = 6
_QRELS_COLUMNS = {3: (0, 1, 2), 4: (0, 2, 3), 5: (0, 2, 3)}  # their number: where query, document and judgement are


def write_run(run: Run, path: str | os.PathLike[str], tag: str = "ciea") -> None:
    """Write a run file that trec_eval reads, documents in trec_eval's order.

    Scores are written with nine digits, which keep a 32-bit float whole.

    Args:
        run: Query id to document id to score.
        path: The file.
        tag: Name of the system, the last column; white space becomes ``-``.

    Raises:
        ValueError: If an id is empty or holds white space, which the format cannot hold.
    """
    name = "-".join(tag.split()) or "ciea"
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            _check_id(query)
            for rank, document in enumerate(rank_documents(scores), start=1):
                _check_id(document)
                file.write(f"{query} Q0 {document} {rank} {scores[document]:.9g} {name}\n")


def read_run(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read a run file; the ranks in it are ignored, as trec_eval does.

    Args:
        path: The file.

    Returns:
        Query id to document id to score.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line has not six columns, its score is no number, or a document repeats; the message names the
            line.
    """
    run: dict[str, dict[str, float]] = {}
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) != _RUN_COLUMNS:
                raise ValueError(
                    f"{path}:{number}: a run has 6 columns (query Q0 document rank score tag), got {len(columns)}"
                )
            query, _, document, _, score, _ = columns
            scores = run.setdefault(query, {})
            if document in scores:
                raise ValueError(f"{path}:{number}: document {document!r} occurs twice for query {query!r}")
            scores[document] = _score(score, f"{path}:{number}")
    return run


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Read judgements, in any of the forms in use.

    Three columns ``query document relevance`` (UniVL-DR, BEIR; a header is skipped), four (TREC, the second is ignored)
    or five, with a task at the end (M-BEIR), separated by white space.

    Args:
        path: The file.

    Returns:
        Query id to document id to judgement.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is of another form, or judges a document again and otherwise; the message names the line.
    """
    qrels: dict[str, dict[str, int]] = {}
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            columns = line.split()
            if not columns or (number == 1 and columns[-1] == "score"):
                continue
            if len(columns) not in _QRELS_COLUMNS:
                raise ValueError(f"{path}:{number}: judgements have 3, 4 or 5 columns, got {len(columns)}")
            query, document, text = (columns[place] for place in _QRELS_COLUMNS[len(columns)])
            judgement = _judgement(text, f"{path}:{number}")
            if qrels.setdefault(query, {}).setdefault(document, judgement) != judgement:
                raise ValueError(
                    f"{path}:{number}: document {document!r} is judged twice for query {query!r}, differently"
                )
    return qrels


def _judgement(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{place}: {text!r} is no whole number") from None


def _score(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise ValueError(f"{place}: {text!r} is no score")
    return score


def _check_id(name: str) -> None:
    if not name or name.split() != [name]:
        raise ValueError(f"the id {name!r} is empty or holds white space: a TREC run file cannot hold it")
