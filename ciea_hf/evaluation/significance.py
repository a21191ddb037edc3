"""Significance of the difference of two runs: paired randomisation test and bootstrap intervals over queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ciea_hf.evaluation.metrics import Qrels, Run, metric_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FloatArray = NDArray[np.float64]

_CHUNK = 2_000_000  # number of random numbers drawn at once
_ROUNDING = 1e-12  # smaller differences count as equal


@dataclass(frozen=True)
class Comparison:
    """Comparison of two runs by one metric.

    Attributes:
        metric: Name of the metric.
        a: Mean of the first run.
        b: Mean of the second run.
        difference: `b - a`.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end of the interval.
        p_value: Two-sided p-value of the paired randomisation test.
        better: Number of queries on which the second run is better.
        worse: Number of queries on which it is worse.
        queries: Number of judged queries.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int
    queries: int


def compare_runs(
    run_a: Run,
    run_b: Run,
    qrels: Qrels,
    metrics: Sequence[str] = ("mrr@10", "ndcg@10", "recall@100"),
    *,
    samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two runs query by query.

    Args:
        run_a: First run.
        run_b: Second run.
        qrels: Query id to document id to judgement.
        metrics: Names of metrics with their cut-offs.
        samples: Number of random assignments of the test, and of resamples of the bootstrap.
        confidence: Confidence of the intervals, between 0 and 1.
        seed: Random seed.

    Returns:
        One comparison per metric.

    Raises:
        ValueError: If a metric is unknown, an argument is out of range, or a run shares no query with the judgements.
    """
    for name, run in (("run_a", run_a), ("run_b", run_b)):
        if not run.keys() & qrels.keys():
            queries = ", ".join(repr(next(iter(side), None)) for side in (run, qrels))
            raise ValueError(f"`{name}` and `qrels` have no query in common; their first ones are {queries}")
    ks = [int(cutoff) for _, _, cutoff in (name.partition("@") for name in metrics) if cutoff.isdecimal()] or [1]
    _, first = metric_columns(run_a, qrels, ks)
    _, second = metric_columns(run_b, qrels, ks)
    unknown = [name for name in metrics if name not in first]
    if unknown:
        raise ValueError(
            f"`metrics` must be map, or mrr, ndcg, recall or hit with a cut-off, such as mrr@10; got {unknown[0]!r}"
        )
    return [_compare(name, first[name], second[name], samples, confidence, seed) for name in metrics]


def _compare(metric: str, a: FloatArray, b: FloatArray, samples: int, confidence: float, seed: int) -> Comparison:
    differences = _differences(a, b)
    low, high = bootstrap_interval(differences, samples, confidence, seed)
    return Comparison(
        metric=metric,
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=randomisation_test(a, b, samples, seed),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        queries=len(a),
    )


def randomisation_test(
    a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray, samples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided paired randomisation (permutation) test of the difference of means.

    Under the null hypothesis the two values of each query are exchangeable. The p-value is the share of exchanges whose
    difference of means is at least as large as the observed one. All exchanges are enumerated if there are at most
    `samples`; otherwise random ones are drawn and the observed one is counted among them, so that the p-value is
    never 0.

    Args:
        a: One value per query.
        b: One value per query, in the same order.
        samples: Number of random exchanges.
        seed: Random seed.

    Returns:
        The p-value, in (0, 1].

    Raises:
        ValueError: If the values differ in number or are empty, or `samples` is below 1.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"`a` and `b` must have one value per query; got shapes {first.shape} and {second.shape}")
    _check_samples(samples)
    differences = _differences(first, second)
    differences = differences[differences != 0]
    observed = abs(differences.sum())
    if len(differences) < samples.bit_length():  # 2 ** differences <= samples
        return float(_reaches(_all_signs(len(differences)) @ differences, observed).mean())
    reached = sum(
        int(_reaches(signs @ differences, observed).sum()) for signs in _random_signs(differences, samples, seed)
    )
    return (reached + 1) / (samples + 1)


def bootstrap_interval(
    values: Sequence[float] | FloatArray, samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of a mean over queries.

    Args:
        values: One value, or one difference of two runs, per query.
        samples: Number of resamples.
        confidence: Share of resampled means within the interval, between 0 and 1.
        seed: Random seed.

    Returns:
        Lower and upper end of the interval.

    Raises:
        ValueError: If `values` is empty, or an argument is out of range.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"`values` must have one number per query; got shape {array.shape}")
    _check_samples(samples)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be between 0 and 1; got {confidence}")
    rng = np.random.default_rng(seed)
    means = [array[rng.integers(len(array), size=(n, len(array)))].mean(axis=1) for n in _chunks(samples, len(array))]
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)


def _differences(a: FloatArray, b: FloatArray) -> FloatArray:
    """Subtract query by query; differences due to rounding become 0."""
    found = b - a
    found[np.abs(found) < _ROUNDING] = 0
    return found


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"`samples` must be at least 1; got {samples}")


def _reaches(sums: FloatArray, observed: float) -> NDArray[np.bool_]:
    return np.abs(sums) >= observed - _ROUNDING


def _all_signs(number: int) -> FloatArray:
    codes = np.arange(2**number)[:, None]
    return np.where(codes >> np.arange(number) & 1, 1.0, -1.0)


def _random_signs(differences: FloatArray, samples: int, seed: int) -> Iterator[FloatArray]:
    rng = np.random.default_rng(seed)
    for rows in _chunks(samples, len(differences)):
        yield 2.0 * rng.integers(0, 2, size=(rows, len(differences))).astype(np.float64) - 1.0


def _chunks(samples: int, width: int) -> Iterator[int]:
    size = max(1, _CHUNK // width)
    yield from (min(size, samples - start) for start in range(0, samples, size))
