from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ciea_hf.evaluation.metrics import metrics_by_kind, per_query_metrics, rank_documents, ranking_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.evaluation.metrics import Qrels, Run

import pytrec_eval

KS = (1, 3, 10)


def random_case(seed: int, queries: int = 25, documents: int = 40) -> tuple[Run, Qrels]:
    """A run and graded qrels with ties, missing queries, unjudged documents and queries without a relevant document."""
    rng = random.Random(seed)
    names = [f"d{i}" for i in range(documents)] + ["ö1", "z", "Z"]
    qrels, run = {}, {}
    for i in range(queries):
        judged = rng.sample(names, rng.randint(1, 8))
        qrels[f"q{i}"] = {name: rng.choice([-1, 0, 0, 1, 1, 2, 3]) for name in judged}
        if rng.random() < 0.85:
            found = rng.sample(names, rng.randint(1, len(names)))
            run[f"q{i}"] = {name: rng.choice([0.1, 0.2, 0.3, rng.random()]) for name in found}
    run["unjudged query"] = {"d1": 1.0}
    return run, qrels


def trec_eval(run: Run, qrels: Qrels, ks: Sequence[int]) -> dict[str, dict[str, float]]:
    """Per query values of pytrec_eval, with 0 for the judged queries that the run lacks."""
    names = {"map"}
    for measure in ("ndcg_cut", "recall", "success"):
        names.add(f"{measure}." + ",".join(map(str, ks)))
    found = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
    values = {}
    for query in qrels:
        scores = found.get(query, {})
        row = {"map": scores.get("map", 0.0)}
        for k in ks:
            row[f"ndcg@{k}"] = scores.get(f"ndcg_cut_{k}", 0.0)
            row[f"recall@{k}"] = scores.get(f"recall_{k}", 0.0)
            row[f"hit@{k}"] = scores.get(f"success_{k}", 0.0)
            cut = {q: {d: run[q][d] for d in rank_documents(run[q])[:k]} for q in [query] if q in run}
            reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut)
            row[f"mrr@{k}"] = reciprocal[query]["recip_rank"] if query in reciprocal else 0.0
        values[query] = row
    return values


def naive(run: Run, qrels: Qrels, query: str, k: int) -> dict[str, float]:
    """MRR, NDCG, recall, hit (cut at k) and average precision by their textbook sums."""
    scores = run.get(query, {})
    order = sorted(scores, key=lambda d: (float(np.float32(scores[d])), d), reverse=True)
    gain = {d: max(0, g) for d, g in qrels[query].items()}
    relevant = sum(g > 0 for g in gain.values())
    mrr = dcg = ideal = found = precision = 0.0
    for rank, document in enumerate(order, start=1):
        if gain.get(document, 0) > 0:
            precision += (sum(gain.get(d, 0) > 0 for d in order[:rank])) / rank
            if rank <= k:
                mrr = mrr or 1 / rank
                dcg += gain[document] / math.log2(rank + 1)
                found += 1
    for rank, value in enumerate(sorted(gain.values(), reverse=True)[:k], start=1):
        ideal += value / math.log2(rank + 1)
    return {
        f"mrr@{k}": mrr,
        f"ndcg@{k}": dcg / ideal if ideal else 0.0,
        f"recall@{k}": found / relevant if relevant else 0.0,
        f"hit@{k}": float(found > 0),
        "map": precision / relevant if relevant else 0.0,
    }


@pytest.mark.parametrize("seed", range(8))
def test_every_query_equals_pytrec_eval(seed: int) -> None:
    run, qrels = random_case(seed)
    ours = per_query_metrics(run, qrels, KS)
    theirs = trec_eval(run, qrels, KS)
    assert list(ours) == list(qrels)
    for query, row in theirs.items():
        assert ours[query] == pytest.approx(row, abs=1e-6), query
    assert len({round(row["map"], 4) for row in ours.values()}) > 5


@pytest.mark.parametrize("seed", range(8, 12))
def test_every_query_equals_naive_oracle(seed: int) -> None:
    run, qrels = random_case(seed)
    ours = per_query_metrics(run, qrels, KS)
    for query in qrels:
        for k in KS:
            expected = naive(run, qrels, query, k)
            assert {name: ours[query][name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_means_count_missing_queries_as_zero() -> None:
    qrels = {"a": {"d1": 1}, "b": {"d1": 1}, "empty": {}}
    metrics = ranking_metrics({"a": {"d1": 1.0}, "stranger": {"d1": 1.0}}, qrels, ks=[10])
    assert metrics == {"mrr@10": 0.5, "ndcg@10": 0.5, "recall@10": 0.5, "hit@10": 0.5, "map": 0.5}


def test_ties_go_to_the_higher_document_id_in_float32() -> None:
    assert rank_documents({"a": 0.5, "b": 0.5, "B": 0.5, "é": 0.5, "c": 0.6}) == ["c", "é", "b", "a", "B"]
    assert rank_documents({"a": 0.5 + 1e-12, "b": 0.5}) == ["b", "a"]


def test_by_kind_splits_the_mean() -> None:
    qrels = {"a": {"d1": 1}, "b": {"d2": 1}, "c": {"d3": 1}}
    run = {"a": {"d1": 1.0}, "b": {"d1": 2.0, "d2": 1.0}, "c": {"d3": 1.0}}
    found = metrics_by_kind(run, qrels, {"a": "image", "b": "image"}, ks=[10])
    assert set(found) == {"image"}
    assert found["image"]["mrr@10"] == 0.75
    assert ranking_metrics(run, qrels, ks=[1])["hit@1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("ks", [[], [0], [-1, 10]])
def test_bad_cutoffs(ks: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="`ks` must be"):
        ranking_metrics({}, {"a": {"d": 1}}, ks)


def test_bad_input_names_the_culprit() -> None:
    with pytest.raises(ValueError, match="no judgement"):
        ranking_metrics({}, {"a": {}})
    with pytest.raises(ValueError, match=r"query 'a'.*document 'd2'"):
        ranking_metrics({"a": {"d1": 1.0, "d2": float("nan")}}, {"a": {"d1": 1}})


def test_empty_run() -> None:
    assert set(ranking_metrics({}, {"a": {"d": 1}}).values()) == {0.0}
