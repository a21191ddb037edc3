"""`ciea evaluate`, `ciea compare` and `ciea mteb`."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch

from ciea_hf.cli import main
from ciea_hf.data import save_retrieval_dataset
from ciea_hf.evaluation.runs import read_run, write_run
from tests.support import sample_datasets
from tests.support.commands import fails
from tests.support.helpers import tiny_model
from tests.support.toy_retrieval import toy_dataset

pytestmark = pytest.mark.usefixtures("cache")


def test_evaluate_prints_a_table_and_writes_files(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "results.json", tmp_path / "ciea.run"
    status = main(["evaluate", model, dataset, "--output", str(out), "--run-file", str(run), "--ks", "1", "3"])
    assert status == 0
    content = json.loads(out.read_text())
    table = capsys.readouterr().out
    assert "| all (3)" in table
    assert f"{content['metrics']['recall@1']:.4f}" in table
    assert set(content["by_kind"]) == {"image", "text", "mixed"}
    rankings = read_run(run)
    assert set(rankings) == {"q-pic", "q-txt", "q-mix"}
    assert all(len(row) == 6 for row in rankings.values())


def test_broken_images_stop_the_commands_that_embed_or_leave_their_captions(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    data, index = str(sample_datasets.webqa(tmp_path / "data")), str(tmp_path / "index")
    for command in (["evaluate", model, data], ["index", model, data, "--output", index], ["search", model, data, "x"]):
        assert "document '30000007': image cannot be decoded" in fails(capsys, *command)
        assert main([*command, "--on-broken-image", "caption"]) == 0
        capsys.readouterr()


def test_evaluate_parts_and_resume(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["evaluate", model, dataset, "--output", str(tmp_path / "a.json"), "--embeddings", str(tmp_path / "e")]
    assert main([*shared, "--content", "caption"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["settings"]["content"] == "caption"
    capsys.readouterr()
    assert "another corpus" in fails(capsys, *shared)


def test_evaluate_baselines_beside_the_model(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert main(["evaluate", model, dataset, "--baselines", "bm25", "caption", "image", "--output", str(out)]) == 0
    content = json.loads(out.read_text())
    assert list(content["baselines"]) == ["bm25", "caption", "image"]
    assert content["baselines"]["image"]["settings"]["content"] == "image"
    assert content["baselines"]["bm25"]["by_kind"]["text"]["mrr@10"] == 1.0
    tables = capsys.readouterr().out.split("\n\n")
    assert [table.split("|")[1].strip() for table in tables[-4:]] == [
        "all queries (3)", "image queries (1)", "mixed queries (1)", "text queries (1)",
    ]  # fmt: skip
    assert main(["evaluate", "bm25", dataset, "--output", str(out)]) == 0
    assert json.loads(out.read_text())["metrics"] == content["baselines"]["bm25"]["metrics"]
    assert main(["evaluate", "bm25", dataset, "--content", "image", "--output", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["settings"]["content"] == "image"
    assert (content["by_kind"]["image"]["mrr@10"], content["by_kind"]["text"]["mrr@10"]) == (0.0, 1.0)
    assert "top_k" in fails(capsys, "evaluate", "bm25", dataset, "--ks", "10", "--top-k", "5")


def test_results_are_kept_when_a_baseline_fails(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert "/no/model" in fails(capsys, "evaluate", model, dataset, "--baselines", "/no/model", "--output", str(out))
    assert json.loads(out.read_text())["metrics"]["mrr@10"] > 0


def test_a_run_file_is_refused_before_anything_is_embedded(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = toy_dataset()
    renamed = whole.corpus.map(lambda row: {"id": row["id"].replace("-", " ")})
    data = replace(whole, corpus=renamed, qrels={"q-pic": {"img red": 1}})
    save_retrieval_dataset({"test": data}, tmp_path / "data", "# Toy")
    assert main(["evaluate", model, str(tmp_path / "data"), "--run-file", str(tmp_path / "a.run")]) == 2
    captured = capsys.readouterr()
    assert "id 'img red' is empty or contains white space" in captured.err
    assert captured.out == ""


def test_the_table_shows_the_cut_offs_that_are_asked_for(
    model: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", model, dataset, "--ks", "5", "20"]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| queries"))
    assert [cell.strip() for cell in head.split("|")[2:-1]] == [
        "MRR@5", "NDCG@5", "Recall@5", "MRR@20", "NDCG@20", "Recall@20",
    ]  # fmt: skip


def test_a_baseline_of_the_same_name_has_its_own_row(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / Path(model).name
    tiny_model(seed=5).save_pretrained(other)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", model, dataset, "--baselines", other.name]) == 0
    table = capsys.readouterr().out.split("\n\n")[-4]
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [f"{other.name} (evaluated)", other.name]


def test_evaluate_with_corrupted_captions(dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert main(["evaluate", "bm25", dataset, "--drop-captions", "1", "--output", str(out)]) == 0
    assert json.loads(out.read_text())["by_kind"]["image"]["mrr@10"] == 0.0


def test_corrupted_captions_are_recorded(model: str, dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert main(["evaluate", model, dataset, "--swap-captions", "0.5", "--seed", "3", "--output", str(out)]) == 0
    settings = json.loads(out.read_text())["settings"]
    assert (settings["swap_captions"], settings["seed"], settings["content"]) == (0.5, 3, "full")


def test_a_sentence_transformers_model_of_text_alone(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sentence_transformers

    modules = importlib.import_module("sentence_transformers.models")
    text = tiny_model("bert")
    text.text_model.save_pretrained(tmp_path / "bert")
    text.processor.tokenizer.save_pretrained(tmp_path / "bert")
    bert = modules.Transformer(str(tmp_path / "bert"))
    pooled = sentence_transformers.SentenceTransformer(modules=[bert, modules.Pooling(bert.get_embedding_dimension())])
    pooled.save(str(tmp_path / "st"))
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "st"), dataset, "--content", "caption"]) == 0
    assert "| all (3)" in capsys.readouterr().out
    assert "does not support image documents" in fails(capsys, "evaluate", str(tmp_path / "st"), dataset)


def test_compare_two_runs(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qrels = toy_dataset().qrels
    write_run({q: dict.fromkeys(row, 1.0) for q, row in qrels.items()}, tmp_path / "good.run")
    write_run({q: {"none": 2.0, **dict.fromkeys(row, 1.0)} for q, row in qrels.items()}, tmp_path / "bad.run")
    runs = [str(tmp_path / "bad.run"), str(tmp_path / "good.run")]
    out = tmp_path / "c.json"
    assert main(["compare", *runs, "--qrels", dataset, "--metrics", "mrr@10", "map", "--output", str(out)]) == 0
    mrr = json.loads(out.read_text())[0]
    assert (mrr["a"], mrr["b"], mrr["better"], mrr["queries"]) == (0.5, 1.0, 3, 3)
    assert mrr["p_value"] == 0.25
    assert "+0.5000" in capsys.readouterr().out
    assert main(["compare", *runs, "--qrels", dataset, "--kind", "image"]) == 0
    assert "queries: 1\n" in capsys.readouterr().out
    (tmp_path / "qrels").write_text("q-pic 0 img-red 1\n")
    assert main(["compare", *runs, "--qrels", str(tmp_path / "qrels")]) == 0
    capsys.readouterr()
    assert "--kind requires a data set" in fails(
        capsys, "compare", *runs, "--qrels", str(tmp_path / "qrels"), "--kind=text"
    )
    assert "mrr@10; got 'best'" in fails(capsys, "compare", *runs, "--qrels", dataset, "--metrics", "best")


def test_mteb_on_a_custom_data_set(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert main(["mteb", model, "--dataset", dataset, "--output", str(tmp_path / "results")]) == 0
    table = capsys.readouterr().out
    assert main(["evaluate", model, dataset, "--output", str(out)]) == 0
    assert f"| {json.loads(out.read_text())['metrics']['mrr@10']:.4f} |" in table
    assert list((tmp_path / "results").rglob("Toy*T2ITRetrieval.json"))
    other = tmp_path / "another" / Path(model).name  # a model and data of the same names
    tiny_model(seed=5).save_pretrained(other)
    turned = toy_dataset()
    turned = replace(turned, name=Path(dataset).name, qrels={"q-txt": {"txt-sea": 1}})
    save_retrieval_dataset({"test": turned}, tmp_path / "turned" / Path(dataset).name, "# Toy")
    both = [dataset, str(tmp_path / "turned" / Path(dataset).name)]
    asked = [word for path in both for word in ("--dataset", path)]
    capsys.readouterr()
    assert main(["mteb", str(other), *asked, "--output", str(tmp_path / "results")]) == 0
    rows = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    for path, row in zip(both, rows, strict=True):
        assert main(["evaluate", str(other), path, "--output", str(out)]) == 0
        assert f"{json.loads(out.read_text())['metrics']['mrr@10']:.4f}" == row
    capsys.readouterr()
    assert main(["mteb", model, "--tasks", "NoSuchTask"]) == 2
    assert "NoSuchTask" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--run-file"])
def test_unwritable_outputs_are_rejected_before_evaluation(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    message = fails(capsys, "evaluate", model, dataset, option, str(tmp_path))
    assert f"{option} must be a file; {tmp_path} is a folder" in message
    (tmp_path / "file").write_text("")
    message = fails(capsys, "evaluate", model, dataset, option, str(tmp_path / "file" / "r"))
    assert f"{option}: {tmp_path}/file/r cannot be written" in message
    assert capsys.readouterr().out == ""


def test_rankings_are_written_when_scores_exist_already(model: str, dataset: str, tmp_path: Path) -> None:
    command = ["mteb", model, "--dataset", dataset, "--output", str(tmp_path / "results")]
    assert main(command) == 0
    assert main([*command, "--predictions", str(tmp_path / "rankings")]) == 0
    assert list((tmp_path / "rankings").rglob("*.json"))


def test_invalid_weights_and_devices_are_named(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    for content in (b"version https://git-lfs.github.com/spec/v1\n", (broken / "model.safetensors").read_bytes()[:99]):
        (broken / "model.safetensors").write_bytes(content)
        error = fails(capsys, "evaluate", str(broken), dataset)
        assert f"the model {broken} cannot be loaded (weights): SafetensorError" in error
    assert "--device must be one of cpu" in fails(capsys, "evaluate", model, dataset, "--device", "gpu")
    if not torch.cuda.is_available():
        assert "got 'cuda'" in fails(capsys, "evaluate", model, dataset, "--device", "cuda")


def test_compare_counts_what_a_run_lacks(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qrels = toy_dataset().qrels
    whole, partial = tmp_path / "whole.run", tmp_path / "partial.run"
    write_run({q: dict.fromkeys(row, 1.0) for q, row in qrels.items()}, whole)
    write_run({q: dict.fromkeys(qrels[q], 1.0) for q in list(qrels)[:1]}, partial)
    assert main(["compare", str(whole), str(partial), "--qrels", dataset]) == 0
    captured = capsys.readouterr()
    assert f"{partial}: 2 of 3 judged queries are missing and count as 0" in captured.out + captured.err
    write_run({"nobody": {"img-red": 1.0}}, partial)
    assert "has none of the 3 judged queries" in fails(capsys, "compare", str(whole), str(partial), "--qrels", dataset)
    write_run({q: {"nothing": 1.0} for q in qrels}, partial)
    assert "has none of the judged documents" in fails(capsys, "compare", str(whole), str(partial), "--qrels", dataset)
