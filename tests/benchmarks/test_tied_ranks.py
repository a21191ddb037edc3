"""Tests of MRR with ties counted at their mean: closed forms, and the mean over all orders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.common.tied_ranks import expected_mrr


def test_closed_forms() -> None:
    qrels = {"q": {"a": 1, "b": 0}}
    assert expected_mrr({"q": {"a": 0.9, "b": 0.5}}, qrels, ["q"]) == 1
    assert expected_mrr({"q": {"a": 0.5, "b": 0.5}}, qrels, ["q"]) == pytest.approx((1 + 1 / 2) / 2)
    assert expected_mrr({"q": {"b": 0.5, "c": 0.5}}, qrels, ["q"]) == 0
    assert expected_mrr({}, qrels, ["q"]) == 0
    assert expected_mrr({"q": {"a": 0.5, "b": 0.6}}, qrels, ["q"], depth=1) == 0


def test_equals_the_mean_over_all_orders() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        documents = [f"d{number}" for number in range(6)]
        scores = {document: float(score) for document, score in zip(documents, rng.integers(0, 3, 6), strict=True)}
        qrels = {"q": {document: int(grade) for document, grade in zip(documents, rng.integers(0, 2, 6), strict=True)}}
        values = []
        for order in itertools.permutations(documents):
            ranked = sorted(order, key=lambda document: -scores[document])[:3]  # a stable sort keeps the order of ties
            ranks = [rank for rank, document in enumerate(ranked, start=1) if qrels["q"][document]]
            values.append(1 / ranks[0] if ranks else 0.0)
        assert expected_mrr({"q": scores}, qrels, ["q"], depth=3) == pytest.approx(np.mean(values))
