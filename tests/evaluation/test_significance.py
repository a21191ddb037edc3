from __future__ import annotations

import itertools

import numpy as np
import pytest

from ciea_hf.evaluation.significance import bootstrap_interval, compare_runs, randomisation_test


def test_few_differences_are_enumerated_exactly() -> None:
    differences = [0.5, -0.25, 1.0, 0.125, 0.0]
    swaps = [
        sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product([1, -1], repeat=5)
    ]
    expected = np.mean([abs(total) >= abs(sum(differences)) - 1e-12 for total in swaps])
    assert randomisation_test([0.0] * 5, differences) == pytest.approx(expected)
    assert randomisation_test([1.0, 2.0], [1.0, 2.0]) == 1.0


def test_random_swaps_agree_with_enumeration() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(12)
    b = a + rng.normal(0.05, 0.2, 12)
    exact = randomisation_test(a, b, samples=2**12)
    assert randomisation_test(a, b, samples=4000) == pytest.approx(exact, abs=0.03)
    assert randomisation_test(a, b, samples=4000) != exact


def test_the_test_keeps_its_level_and_finds_a_difference() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for trial in range(200):
        a, b = rng.random((2, 40))
        p_values.append(randomisation_test(a, b, samples=199, seed=trial))
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.10
    a = rng.random(200)
    assert randomisation_test(a, a + rng.normal(0.1, 0.1, 200), samples=999) == pytest.approx(1 / 1000)


def test_bootstrap_interval_matches_the_normal_one_and_covers() -> None:
    values = np.random.default_rng(2).normal(0.3, 1.0, 2000)
    low, high = bootstrap_interval(values, samples=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    narrow = bootstrap_interval(values, samples=4000, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval([0.5, 0.5], samples=10) == (0.5, 0.5)


def test_runs_are_compared_query_by_query() -> None:
    qrels = {f"q{i}": {"good": 1} for i in range(20)}
    a = {query: {"bad": 2.0, "good": 1.0} for query in qrels}
    b = {query: {"bad": 1.0, "good": 2.0} if int(query[1:]) < 15 else a[query] for query in qrels}
    mrr, hit = compare_runs(a, b, qrels, ["mrr@10", "hit@1"], samples=2000)
    assert (mrr.a, mrr.b, mrr.difference) == pytest.approx((0.5, 0.875, 0.375))
    assert (mrr.better, mrr.worse, mrr.queries) == (15, 0, 20)
    assert mrr.low < 0.375 < mrr.high
    assert mrr.p_value < 0.01
    assert hit.difference == pytest.approx(0.75)
    same = compare_runs(a, a, qrels, ["map"])[0]
    assert (same.p_value, same.low, same.high) == (1.0, 0.0, 0.0)


def test_rounding_of_sums_is_not_a_difference() -> None:
    relevant = {f"d{i}": 1 for i in range(6)}
    qrels = {f"q{i}": relevant for i in range(40)}
    rng = np.random.default_rng(0)
    short = {q: {f"d{i}" if i % 3 else f"x{i}": float(s) for i, s in enumerate(rng.random(12))} for q in qrels}
    long = {q: row | {f"y{i}": -1.0 - i for i in range(37)} for q, row in short.items()}
    for one in compare_runs(short, long, qrels, ["map", "ndcg@1000"], samples=100):
        assert (one.better, one.worse, one.difference, one.p_value) == (0, 0, 0.0, 1.0)
    noise = np.array([3e-17, -1e-17, 0.5])
    assert (
        randomisation_test(np.zeros(3), noise, samples=10**4) == 1.0
    )  # with one difference, both signs are equally extreme


def test_results_depend_on_the_seed_alone() -> None:
    values = np.random.default_rng(3).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="one value per query"):
        randomisation_test([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="`samples` must be at least 1"):
        randomisation_test([1.0], [2.0], samples=0)
    with pytest.raises(ValueError, match="`confidence` must be"):
        bootstrap_interval([1.0], confidence=95)
    with pytest.raises(ValueError, match="one number per query"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match=r"mrr@10; got 'mrr'"):
        compare_runs({"q": {}}, {"q": {}}, {"q": {"d": 1}}, ["mrr"])
    with pytest.raises(ValueError, match=r"`run_b` and `qrels` have no query in common; .* are '7', 'q'"):
        compare_runs({"q": {}}, {"7": {}}, {"q": {"d": 1}})
