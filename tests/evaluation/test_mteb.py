from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ciea_hf import CIEAModel
from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.evaluation import evaluate
from ciea_hf.evaluation.mteb_encoder import TASKS, MTEBEncoder, model_meta, training_datasets
from ciea_hf.evaluation.mteb_task import retrieval_task
from tests.support.helpers import tiny_model, toy_image
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    from pathlib import Path

mteb = importlib.import_module("mteb")  # its types differ between versions


@pytest.fixture(scope="module")
def model() -> CIEAModel:
    return tiny_model()


def scores_of(model: CIEAModel, dataset: RetrievalDataset) -> dict[str, float]:
    options = {"batch_size": 5, "show_progress_bar": False}
    result = mteb.evaluate(MTEBEncoder(model), retrieval_task(dataset), cache=None, encode_kwargs=options)
    return result.task_results[0].scores[dataset.split][0]


def images_that_differ() -> RetrievalDataset:
    """Documents that only their images distinguish, with texts and an image without a caption."""
    count = 24
    names = [f"i{number:02d}" for number in range(count)]
    texts = ["a red cat"] * (count - 1) + [None]
    corpus = corpus_from_columns(
        [*names, "t1", "t2"],
        [*texts, "the small house", "a green tree"],
        [*(toy_image(number) for number in range(count)), None, None],
    )
    words = ["a red cat", "the house", "who is in the picture", "a drawing of bread", "tree", "next to the tower"]
    queries = queries_from_columns([f"q{number}" for number in range(len(words))], words)
    qrels = {f"q{number}": {names[3 * number]: 2, names[3 * number + 1]: 1} for number in range(len(words))}
    return RetrievalDataset(corpus, queries, qrels, "different images", "test")


def test_scores_equal_our_evaluation_and_depend_on_the_images(model: CIEAModel) -> None:
    dataset = images_that_differ()
    theirs = scores_of(model, dataset)
    ours = evaluate(model, dataset).metrics
    for k in (1, 10, 100):
        assert theirs[f"mrr_at_{k}"] == pytest.approx(ours[f"mrr@{k}"], abs=1e-6)
        for name in ("ndcg", "recall"):  # mteb rounds these to five digits
            assert theirs[f"{name}_at_{k}"] == pytest.approx(round(ours[f"{name}@{k}"], 5), abs=1e-6)
    blind = evaluate(model, dataset, content="caption").metrics
    assert abs(blind["ndcg@10"] - theirs["ndcg_at_10"]) > 1e-3, "the images must change the ranking"


def test_every_kind_of_document_reaches_the_model(model: CIEAModel) -> None:
    batch = {"text": ["a red cat", "a red cat", "  "], "image": [toy_dataset().corpus[0]["image"], None, None]}
    rows = MTEBEncoder(model).encode([batch, {"text": ["a red cat"]}], prompt_type=mteb.types.PromptType.document)
    captioned, text, nothing, again = rows
    assert abs(captioned - text).max() > 1e-3
    assert abs(nothing).max() == 0
    assert abs(text - again).max() < 1e-6


def test_queries_are_encoded_as_queries() -> None:
    model = tiny_model(prompts={"query": "a cat in the house ", "document": ""})
    encoder = MTEBEncoder(model)
    query = encoder.encode([{"text": ["red"]}], prompt_type=mteb.types.PromptType.query)
    document = encoder.encode([{"text": ["red"]}], prompt_type=mteb.types.PromptType.document)
    assert abs(query - model.encode_query(["red"], normalize_embeddings=True)).max() < 1e-6
    assert abs(query - document).max() > 1e-3


def test_the_meta_describes_the_model(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\ndatasets:\n- OpenMatch/WebQA\n- my/own\n---\n# Card\n")
    model = CIEAModel.from_pretrained(tmp_path)
    meta = model_meta(model, "me/mine", str(tmp_path))
    assert meta.modalities == ["text", "image"]
    assert meta.training_datasets == {"WebQAT2ITRetrieval", "WebQAT2TRetrieval", "my/own"}
    assert meta.embed_dim == model.config.hidden_size
    loaded = meta.loader(meta.name, revision=meta.revision, **meta.loader_kwargs)
    assert loaded.mteb_model_meta.training_datasets == meta.training_datasets
    document = [{"text": ["a red cat"], "image": [toy_dataset().corpus[0]["image"]]}]
    assert abs(loaded.encode(document) - MTEBEncoder(model).encode(document)).max() < 1e-6
    (tmp_path / "README.md").unlink()
    assert training_datasets(str(tmp_path)) is None


def test_the_named_tasks_exist_with_images() -> None:
    for name in TASKS:
        task = mteb.get_task(name)
        assert "text" in task.metadata.modalities
    assert mteb.get_task(TASKS[0]).metadata.category == "t2it"


def test_the_loader_takes_what_mteb_passes(model: CIEAModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    meta = model_meta(model, "local/model", str(tmp_path / "model"))
    batches: list[dict[str, list[Any]]] = [{"text": ["a red cat", "the small house"], "image": [toy_image(1), None]}]
    whole: Any = MTEBEncoder(model).encode(batches)
    arguments: dict[str, Any] = {"trust_remote_code": True, "dtype": "float32"}
    same: Any = MTEBEncoder.load(meta.name, **meta.loader_kwargs, **arguments).encode(batches)
    np.testing.assert_allclose(same, whole, atol=1e-6)  # weights in a mapped file are aligned otherwise
    short: Any = MTEBEncoder.load(meta.name, **meta.loader_kwargs, embed_dim=8, **arguments).encode(batches)
    np.testing.assert_allclose(short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-6)
    half = MTEBEncoder.load(meta.name, **meta.loader_kwargs, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="must be at most 32"):
        MTEBEncoder.load(meta.name, **meta.loader_kwargs, embed_dim=64).encode(batches)


def test_a_model_is_loaded_from_its_meta(model: CIEAModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.save_pretrained(tmp_path / "model")
    meta = model_meta(model, "local/model", str(tmp_path / "model"))
    monkeypatch.setattr(type(meta), "_check_requirements", lambda _: None)  # it demands torchvision
    loaded = meta.load_model(device="cpu", embed_dim=32, trust_remote_code=True, dtype=torch.float32)
    batches: list[dict[str, list[Any]]] = [{"text": ["a red cat"]}]
    expected: Any = MTEBEncoder(model).encode(batches)
    np.testing.assert_allclose(loaded.encode(batches), expected, atol=1e-6)
