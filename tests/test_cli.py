from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from PIL import Image

from ciea_hf import __version__
from ciea_hf.cli import main
from ciea_hf.data import save_retrieval_dataset
from ciea_hf.evaluation.runs import read_run, write_run
from tests import specimens
from tests.helpers import tiny_model
from tests.toy_retrieval import toy_dataset


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toy"
    save_retrieval_dataset({"test": toy_dataset()}, folder, "# Toy")
    return str(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fails(capsys, *arguments):
    """Run a command that must fail as a user's error does: status 2, one line on stderr. Returns the line."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ciea: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_and_version(capsys):
    for arguments in (["--help"], ["evaluate", "--help"], ["search", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    assert f"ciea {__version__}" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from ciea_hf.cli import build_parser; build_parser();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_evaluate_prints_a_table_and_writes_files(model, dataset, tmp_path, capsys):
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


def test_broken_pictures_stop_the_commands_that_embed_or_leave_their_captions(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    data, index = str(specimens.webqa(tmp_path / "data")), str(tmp_path / "index")
    for command in (["evaluate", model, data], ["index", model, data, "--output", index], ["search", model, data, "x"]):
        assert "picture of document '30000007' (row 8) is broken" in fails(capsys, *command)
        assert main([*command, "--on-broken-image", "caption"]) == 0
        capsys.readouterr()


def test_evaluate_parts_and_resume(model, dataset, tmp_path, capsys):
    shared = ["evaluate", model, dataset, "--output", str(tmp_path / "a.json"), "--embeddings", str(tmp_path / "e")]
    assert main([*shared, "--documents", "caption"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["settings"]["documents"] == "caption"
    capsys.readouterr()
    assert "another corpus" in fails(capsys, *shared)


def test_evaluate_baselines_beside_the_model(model, dataset, tmp_path, capsys):
    pytest.importorskip("bm25s")
    out = tmp_path / "r.json"
    assert main(["evaluate", model, dataset, "--baselines", "bm25", "caption", "image", "--output", str(out)]) == 0
    content = json.loads(out.read_text())
    assert list(content["baselines"]) == ["bm25", "caption", "image"]
    assert content["baselines"]["image"]["settings"]["documents"] == "image"
    assert content["baselines"]["bm25"]["by_kind"]["text"]["mrr@10"] == 1.0
    tables = capsys.readouterr().out.split("\n\n")
    assert [table.split("|")[1].strip() for table in tables[-4:]] == [
        "all queries (3)", "image queries (1)", "mixed queries (1)", "text queries (1)",
    ]  # fmt: skip
    assert main(["evaluate", "bm25", dataset, "--output", str(out)]) == 0
    assert json.loads(out.read_text())["metrics"] == content["baselines"]["bm25"]["metrics"]
    assert main(["evaluate", "bm25", dataset, "--documents", "image", "--output", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["settings"]["documents"] == "image"
    assert (content["by_kind"]["image"]["mrr@10"], content["by_kind"]["text"]["mrr@10"]) == (0.0, 1.0)
    assert "top_k" in fails(capsys, "evaluate", "bm25", dataset, "--ks", "10", "--top-k", "5")


def test_what_is_evaluated_is_kept_when_a_baseline_fails(model, dataset, tmp_path, capsys):
    out = tmp_path / "r.json"
    assert "/no/model" in fails(capsys, "evaluate", model, dataset, "--baselines", "/no/model", "--output", str(out))
    assert json.loads(out.read_text())["metrics"]["mrr@10"] > 0


def test_a_run_file_is_refused_before_anything_is_embedded(model, tmp_path, capsys):
    whole = toy_dataset()
    renamed = whole.corpus.map(lambda row: {"id": row["id"].replace("-", " ")})
    data = replace(whole, corpus=renamed, qrels={"q-pic": {"img red": 1}})
    save_retrieval_dataset({"test": data}, tmp_path / "data", "# Toy")
    assert main(["evaluate", model, str(tmp_path / "data"), "--run-file", str(tmp_path / "a.run")]) == 2
    captured = capsys.readouterr()
    assert "the id 'img red' is empty or holds white space" in captured.err
    assert captured.out == ""


def test_the_table_shows_the_cut_offs_that_are_asked_for(model, dataset, capsys):
    assert main(["evaluate", model, dataset, "--ks", "5", "20"]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| queries"))
    assert [cell.strip() for cell in head.split("|")[2:-1]] == [
        "MRR@5", "NDCG@5", "Recall@5", "MRR@20", "NDCG@20", "Recall@20",
    ]  # fmt: skip


def test_a_baseline_of_the_same_name_has_a_row_of_its_own(model, dataset, tmp_path, capsys, monkeypatch):
    other = tmp_path / Path(model).name
    tiny_model(seed=5).save_pretrained(other)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", model, dataset, "--baselines", other.name]) == 0
    table = capsys.readouterr().out.split("\n\n")[-4]
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [f"{other.name} (evaluated)", other.name]


def test_evaluate_with_spoiled_captions(dataset, tmp_path):
    pytest.importorskip("bm25s")
    out = tmp_path / "r.json"
    assert main(["evaluate", "bm25", dataset, "--drop-captions", "1", "--output", str(out)]) == 0
    assert json.loads(out.read_text())["by_kind"]["image"]["mrr@10"] == 0.0


def test_spoiled_captions_are_noted(model, dataset, tmp_path):
    out = tmp_path / "r.json"
    assert main(["evaluate", model, dataset, "--swap-captions", "0.5", "--seed", "3", "--output", str(out)]) == 0
    settings = json.loads(out.read_text())["settings"]
    assert (settings["swap_captions"], settings["seed"], settings["documents"]) == (0.5, 3, "full")


def test_search_lists_hits_and_marks_the_known_ones(model, dataset, tmp_path, capsys, cache):
    sheet, hits = tmp_path / "hits.png", tmp_path / "hits.json"
    command = ["search", model, dataset, "a red cat", "--query-id", "q-pic", "--top-k", "6"]
    assert main([*command, "--images", str(sheet), "--json", str(hits)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(hits.read_text())
    assert [row["query"] for row in content] == ["a red cat", "red cup"]
    assert [hit["rank"] for hit in content[0]["hits"]] == [1, 2, 3, 4, 5, 6]
    assert re.findall(r"^\*.*(img-red|other)", printed, flags=re.MULTILINE) == ["img-red"]
    assert Image.open(sheet).width > 6 * 200
    assert len(list((cache / "embeddings").iterdir())) == 1
    assert main([*command]) == 0
    assert capsys.readouterr().out.replace("\n\n", "\n") in printed.replace("\n\n", "\n")


def test_queries_may_stand_anywhere(model, dataset, capsys):
    printed = []
    for order in (["a red cat", "the house", "--top-k", "2"], ["--top-k", "2", "a red cat", "the house"]):
        assert main(["search", model, dataset, *order]) == 0
        printed.append(capsys.readouterr().out)
    assert main(["search", model, dataset, "a red cat", "--top-k", "2", "the house"]) == 0
    assert printed[0] == printed[1] == capsys.readouterr().out
    for arguments in (["search", model, dataset, "a red cat", "--colour", "red"], ["evaluate", model, dataset, "more"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "unrecognized arguments" in capsys.readouterr().err


def test_a_sentence_transformers_model_of_text_alone(dataset, tmp_path, capsys):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.models")
    text = tiny_model("bert")
    text.text_model.save_pretrained(tmp_path / "bert")
    text.processor.tokenizer.save_pretrained(tmp_path / "bert")
    bert = modules.Transformer(str(tmp_path / "bert"))
    pooled = sentence_transformers.SentenceTransformer(modules=[bert, modules.Pooling(bert.get_embedding_dimension())])
    pooled.save(str(tmp_path / "st"))
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "st"), dataset, "--documents", "caption"]) == 0
    assert "| all (3)" in capsys.readouterr().out
    assert "takes no image documents" in fails(capsys, "evaluate", str(tmp_path / "st"), dataset)


def test_search_in_an_index_folder(model, dataset, tmp_path, capsys):
    index = tmp_path / "index"
    assert main(["index", model, dataset, "--output", str(index), "--dtype", "float16", "--shard-size", "4"]) == 0
    assert "6 documents, complete" in capsys.readouterr().out
    assert main(["search", model, str(index), "a red cat", "--top-k", "2", "--images", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").exists()
    shared = ["index", model, dataset, "--output", str(tmp_path / "parts"), "--shard-size", "1"]
    assert main([*shared, "--part", "2/2"]) == 0
    assert "3 shards are still missing" in capsys.readouterr().out
    assert "3 of 6 shards are missing" in fails(capsys, "search", model, str(tmp_path / "parts"), "a red cat")
    assert main([*shared, "--part", "1/2"]) == 0
    assert "complete" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*shared, "--part", "3/2"])
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    capsys.readouterr()
    assert "another model" in fails(capsys, "search", str(other), str(index), "a red cat")


def test_compare_two_runs(dataset, tmp_path, capsys):
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
    assert "--kind needs a data set" in fails(
        capsys, "compare", *runs, "--qrels", str(tmp_path / "qrels"), "--kind=text"
    )
    assert "mrr@10; got 'best'" in fails(capsys, "compare", *runs, "--qrels", dataset, "--metrics", "best")


def test_mteb_on_a_data_set_of_ones_own(model, dataset, tmp_path, capsys):
    pytest.importorskip("mteb")
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "/no/model", "DATA"], "no model at /no/model"),
        (["evaluate", "MODEL", "/no/data"], "/no/data"),
        (["evaluate", "MODEL", "DATA", "--split", "dev"], "'dev'"),
        (["evaluate", "MODEL", "DATA", "--ks", "10", "--top-k", "5"], "top_k"),
        (["search", "MODEL", "DATA"], "at least one QUERY"),
        (["search", "MODEL", "DATA", "--query-id", "q9"], "no query 'q9'"),
    ],
)
def test_users_errors_are_one_line(arguments, message, model, dataset, capsys):
    names = {"MODEL": model, "DATA": dataset}
    assert message in fails(capsys, *(names.get(a, a) for a in arguments))


def test_a_folder_without_a_model(tmp_path, dataset, capsys):
    assert "holds no model" in fails(capsys, "evaluate", str(tmp_path), dataset)


def test_bad_values_are_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "m", "d", "--ks", "0"])
    assert stop.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_debug_shows_the_traceback(dataset):
    with pytest.raises(FileNotFoundError):
        main(["--debug", "evaluate", "/no/model", dataset])


def test_interruption_ends_with_130(monkeypatch, dataset, capsys):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ciea_hf.commands.common.load_dataset", interrupted)
    assert main(["evaluate", "m", dataset]) == 130
    assert capsys.readouterr().err == "ciea: interrupted\n"


def test_output_into_a_closed_pipe_is_no_error():
    code = "import sys, ciea_hf.cli as c, ciea_hf.commands.evaluate as e\n"
    code += "e.run = lambda a: [e.common.write('x' * 9999) for _ in range(99)] and 0\n"
    code += "sys.exit(c.main(['evaluate', 'm', 'd']))"
    command = f'{sys.executable} -c "{code}" | head -c 1 > /dev/null; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""
