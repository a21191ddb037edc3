"""Metrics as modules of Hugging Face's `evaluate`, loaded from this package, without network access.

Examples:
    >>> import evaluate
    >>> import ciea_hf.metrics
    >>> metric = evaluate.load(ciea_hf.metrics.path("retrieval"))
    >>> predictions, references = ciea_hf.metrics.as_examples({"q": {"d": 0.9}}, {"q": {"d": 1}})
    >>> metric.compute(predictions=predictions, references=references, ks=[10])["mrr@10"]
    1.0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciea_hf.evaluation.metrics import Qrels, Run

_FOLDER = Path(__file__).parent


def path(name: str) -> str:
    """Return the path of a metric of this package, for `evaluate.load`.

    Args:
        name: Name of the metric: `"retrieval"`.

    Raises:
        ValueError: If the metric does not exist.
    """
    if not (_FOLDER / name / f"{name}.py").is_file():
        known = sorted(script.stem for script in _FOLDER.glob("*/*.py") if script.stem == script.parent.name)
        raise ValueError(f"`name` must be one of {', '.join(known)}; got {name!r}")
    return str(_FOLDER / name)


def as_examples(run: Run, qrels: Qrels) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Convert a run and judgements to the predictions and references of the `retrieval` metric.

    Args:
        run: Query id to document id to score.
        qrels: Query id to document id to judgement.

    Returns:
        One prediction and one reference per judged query; a query missing from the run has empty lists.
    """
    queries = [query for query, judgements in qrels.items() if judgements]
    found = [run.get(query, {}) for query in queries]
    predictions = [{"documents": list(scores), "scores": list(scores.values())} for scores in found]
    references = [{"documents": list(qrels[q]), "judgements": list(qrels[q].values())} for q in queries]
    return predictions, references
