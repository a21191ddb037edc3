"""TREC files: runs (`query Q0 document rank score tag`) and judgements (`query 0 document relevance`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.parsing import judgements
from ciea_hf.evaluation.metrics import rank_documents
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from ciea_hf.data.issues import Location
    from ciea_hf.evaluation.metrics import Run

_RUN_COLUMNS = 6


def write_run(run: Run, path: str | os.PathLike[str], tag: str = "ciea") -> None:
    """Write a run file that trec_eval reads, documents in trec_eval's order.

    Scores are written with nine digits, which keep a 32-bit float whole.

    Args:
        run: Query id to document id to score.
        path: The file.
        tag: Name of the system, the last column; white space becomes `-`.

    Raises:
        ValueError: If an id is empty or holds white space, which the format cannot hold.
    """
    name = "-".join(tag.split()) or "ciea"
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            check_ids([query, *scores])
            for rank, document in enumerate(rank_documents(scores), start=1):
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
    with Path(path).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) != _RUN_COLUMNS:
                raise ValueError(
                    f"{path}:{number}: a run has 6 columns (query Q0 document rank score tag); got {len(columns)}"
                )
            query, _, document, _, score, _ = columns
            scores = run.setdefault(query, {})
            if document in scores:
                raise ValueError(f"{path}:{number}: document {document!r} occurs twice for query {query!r}")
            scores[document] = _score(score, f"{path}:{number}")
    return run


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Read judgements, in any of the forms in use.

    Three columns `query document relevance` (UniVL-DR, BEIR; a header is skipped), four (TREC, the second is ignored)
    or five, with a task at the end (M-BEIR), separated by tabs or else by white space.

    Args:
        path: The file.

    Returns:
        Query id to document id to judgement.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is of another form, or judges a document again and otherwise; the message names the line.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, query, document, score in judgements(Path(path), _raise):
        if qrels.setdefault(query, {}).setdefault(document, score) != score:
            raise ValueError(f"{place}: document {document!r} is judged twice for query {query!r}, differently")
    return qrels


def check_ids(names: Iterable[str]) -> None:
    """Make sure that run files can hold ids.

    Raises:
        ValueError: If one is empty or holds white space.
    """
    for name in names:
        if not name or name.split() != [name]:
            raise ValueError(f"the id {name!r} is empty or holds white space: a TREC run file cannot hold it")


def _raise(kind: str, place: Location, name: str | None, message: str) -> None:  # noqa: ARG001
    if kind == "missing-file":
        raise FileNotFoundError(f"{place}: {message}")
    raise ValueError(f"{place}: {message}")


def _score(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise ValueError(f"{place}: {text!r} is no score")
    return score
