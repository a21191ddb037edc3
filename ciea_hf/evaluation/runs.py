"""TREC files: runs (`query Q0 document rank score tag`) and judgements (`query 0 document relevance`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.issues import raise_issue
from ciea_hf.data.judgements import judgements
from ciea_hf.data.parsing import text_lines
from ciea_hf.evaluation.metrics import rank_documents
from ciea_hf.files import atomic_write

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from ciea_hf.evaluation.metrics import Run

_RUN_COLUMNS = 6


def write_run(run: Run, path: str | os.PathLike[str], tag: str = "ciea") -> None:
    """Write a TREC run file, with documents in trec_eval's order.

    Scores are written with nine digits, which represent a 32-bit float exactly.

    Args:
        run: Query id to document id to score.
        path: Path of the file.
        tag: Name of the system, for the last column; white space becomes `-`.

    Raises:
        ValueError: If an id is empty or contains white space, which the format does not allow.
    """
    name = "-".join(tag.split()) or "ciea"
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            check_ids([query, *scores])
            for rank, document in enumerate(rank_documents(scores), start=1):
                file.write(f"{query} Q0 {document} {rank} {scores[document]:.9g} {name}\n")


def read_run(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read a TREC run file; its ranks are ignored, as trec_eval does, and so is text after the tag.

    Args:
        path: Path of the file; one that ends in `.gz` is decompressed.

    Returns:
        Query id to document id to score.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line does not have six columns, a score is not a number, or a document repeats; the message
            names the line.
    """
    file = Path(path)
    if file.name.removesuffix(".gz").endswith((".json", ".parquet", ".csv")):
        raise ValueError(f"{file}: a run must be a TREC file (query Q0 document rank score tag), not {file.suffix}")
    if not file.is_file():
        raise FileNotFoundError(f"run file {str(file)!r} not found")
    run: dict[str, dict[str, float]] = {}
    for location, line in text_lines(file, raise_issue):
        columns = line.split(None, _RUN_COLUMNS - 1)
        if len(columns) != _RUN_COLUMNS:
            raise ValueError(
                f"{location}: a run must have 6 columns (query Q0 document rank score tag); got {len(columns)}"
            )
        query, _, document, _, score, _ = columns
        scores = run.setdefault(query, {})
        if document in scores:
            raise ValueError(f"{location}: document {document!r} occurs twice for query {query!r}")
        scores[document] = _score(score, str(location))
    return run


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Read judgements in any of the common formats.

    See [`judgements`] for the formats. All lines of a file have the form of the first.

    Args:
        path: Path of the file.

    Returns:
        Query id to document id to judgement.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line has another format, or contradicts an earlier one; the message names the line.
    """
    qrels: dict[str, dict[str, int]] = {}
    for location, query, document, score in judgements(Path(path), raise_issue):
        if qrels.setdefault(query, {}).setdefault(document, score) != score:
            raise ValueError(f"{location}: document {document!r} has two different judgements for query {query!r}")
    return qrels


def check_ids(names: Iterable[str]) -> None:
    """Check that ids can be written to a run file.

    Raises:
        ValueError: If an id is empty or contains white space.
    """
    for name in names:
        if not name or name.split() != [name]:
            raise ValueError(f"id {name!r} is empty or contains white space, which TREC run files do not allow")


def _score(text: str, location: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise ValueError(f"{location}: {text!r} is not a score")
    return score
