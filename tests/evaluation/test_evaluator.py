from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ciea_hf.data import RetrievalDataset
from ciea_hf.evaluation import evaluate, ranking_metrics, score_run
from ciea_hf.retrieval import DocumentView, EncodingOptions
from tests.support.helpers import tiny_model
from tests.support.toy_retrieval import ToyEncoder, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


def test_whole_documents_are_found_by_what_only_the_image_shows() -> None:
    result = evaluate(ToyEncoder(), toy_dataset(), ks=(1, 3))
    assert result.by_kind["image"]["mrr@1"] == 1.0
    assert result.by_kind["mixed"]["recall@3"] == 1.0
    assert set(result.by_kind) == {"image", "mixed", "text"}
    assert result.counts == {"documents": 6, "queries": 3, **{f"queries/{kind}": 1 for kind in result.by_kind}}
    assert result.metrics == ranking_metrics(result.run, toy_dataset().qrels, ks=(1, 3))
    assert all(len(row) == 6 for row in result.run.values())


def test_parts_of_documents_change_what_is_found() -> None:
    captions = evaluate(ToyEncoder(), toy_dataset(), content="caption")
    images = evaluate(ToyEncoder(), toy_dataset(), content="image")
    row = captions.run["q-pic"]
    assert row["img-red"] == pytest.approx(row["img-green"]), "captions alone cannot tell the cups apart"
    assert images.run["q-pic"]["img-red"] > 0.5 > images.run["q-pic"]["img-green"]
    assert images.by_kind["text"]["mrr@10"] == 1.0, "text documents stay"


def test_equal_scores_are_cut_by_document_id() -> None:
    dataset = toy_dataset()
    captions = evaluate(ToyEncoder(), dataset, content="caption", ks=[2], top_k=2)
    assert list(captions.run["q-pic"]) == ["img-red", "img-green"]
    same = DocumentView(dataset, "caption", captions=["same"] * 6)
    assert list(evaluate(ToyEncoder(), dataset, content=same, ks=[2], top_k=2).run["q-pic"]) == ["txt-tea", "txt-sea"]


def test_only_judged_queries_are_searched() -> None:
    whole = toy_dataset()
    part = RetrievalDataset(
        whole.corpus, whole.queries, {"q-txt": {"txt-tea": 1}, "lost": {"txt-tea": 1}}, "toy", "dev"
    )
    result = evaluate(ToyEncoder(), part)
    assert set(result.run) == {"q-txt"}
    assert result.metrics["mrr@10"] == 0.5, "a judged query without text counts as 0"
    with pytest.raises(ValueError, match="no query has a judgement"):
        evaluate(ToyEncoder(), RetrievalDataset(whole.corpus, whole.queries, {}, "toy", "dev"))


def test_result_is_ready_for_json_and_for_reading(tmp_path: Path) -> None:
    result = evaluate(ToyEncoder(), toy_dataset(), folder=tmp_path, options=EncodingOptions(shard_size=4))
    content = json.loads(json.dumps(result.to_dict()))
    assert content["metrics"]["mrr@10"] == result.metrics["mrr@10"]
    assert set(content["seconds"]) == {"documents", "queries", "search"}
    assert "run" not in content
    lines = result.table().splitlines()
    assert lines[0].split() == [
        "|",
        "queries",
        "|",
        "MRR@10",
        "|",
        "NDCG@10",
        "|",
        "Recall@1",
        "|",
        "Recall@10",
        "|",
        "Recall@100",
        "|",
    ]
    assert lines[2].startswith("| all (3) ")
    assert len({len(line) for line in lines}) == 1
    again = evaluate(ToyEncoder(), toy_dataset(), folder=tmp_path, options=EncodingOptions(shard_size=4))
    assert again.run == result.run


def test_runs_of_other_systems_are_scored_too() -> None:
    result = score_run({"q-txt": {"txt-tea": 2.0}}, toy_dataset(), ks=[10], settings={"system": "mine"})
    assert result.metrics["mrr@10"] == pytest.approx(1 / 3)
    assert result.by_kind["text"]["mrr@10"] == 1.0
    assert result.settings == {"system": "mine"}


def test_the_model_through_sentence_transformers_gives_the_same(tmp_path: Path) -> None:
    import sentence_transformers

    model = tiny_model()
    model.save_pretrained(tmp_path)
    own = evaluate(model, toy_dataset())
    through = evaluate(sentence_transformers.SentenceTransformer(str(tmp_path)), toy_dataset())
    for query, row in own.run.items():
        assert through.run[query] == pytest.approx(row, abs=1e-5)


def test_depth_must_reach_the_cutoffs() -> None:
    with pytest.raises(ValueError, match="`top_k` must be at least the highest cut-off 10"):
        evaluate(ToyEncoder(), toy_dataset(), ks=[10], top_k=5)
