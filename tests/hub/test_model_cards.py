"""Model cards: contents, sources, and metadata that the Hub accepts."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from huggingface_hub import ModelCard

from ciea_hf.model_cards import render_model_card, write_model_card
from ciea_hf.model_cards.card import is_generated, is_hub_id
from ciea_hf.model_cards.run_files import without_private_paths
from tests.support.helpers import tiny_model
from tests.support.hub_rules import metadata_errors

if TYPE_CHECKING:
    from pathlib import Path

RUN = {
    "command": ["accelerate", "launch", "training/train.py", "--preset", "demo", "--output_dir", "/home/me/runs/a b"],
    "config": {"dataset": "/home/me/data/scenes", "seed": 3, "learning_rate": 5e-6, "adam_betas": (0.9, 0.98)},
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "git_revision": "0123abc",
    "data_fingerprint": "fe12",
    "steps": 400,
    "seconds": 90.0,
}
RESULTS = {
    "dataset": "OpenMoji Scenes (small)",
    "split": "test",
    "metrics": {"mrr@10": 0.41236, "ndcg@10": 0.5, "recall@1": 0.2, "recall@10": 0.6, "recall@100": 0.9, "map": 0.4},
    "by_kind": {"image": {"mrr@10": 0.39}, "text": {"mrr@10": 0.99}},
    "counts": {"documents": 1250, "queries": 60, "queries/image": 50, "queries/text": 10},
    "settings": {"content": "full"},
}


def metadata(card: str) -> Any:
    """Return the metadata of a card as the client of the Hub reads it."""
    return ModelCard(card).data


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "best"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "run" / "best")


def test_the_card_reports_the_run_and_its_results(folder: Path) -> None:
    text = write_model_card(folder, run=RUN, results=RESULTS, repo_id="org/ciea-demo").read_text()
    assert 'AutoModel.from_pretrained("org/ciea-demo", revision=REVISION, trust_remote_code=True)' in text
    assert 'SentenceTransformer("org/ciea-demo", revision=REVISION, trust_remote_code=True)' in text
    assert "accelerate launch training/train.py --preset demo --output_dir 'a b'" in text
    assert "| all (60)   | 0.4124 |" in text
    assert "| image (50) | 0.3900 |" in text
    for fact in ("`0123abc`", "`fe12`", "torch 2.13.0", "- Seed: 3", "- Dataset: scenes", "1.5 minutes", "4 patches"):
        assert fact in text, fact
    configuration = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    assert configuration == {"dataset": "scenes", "seed": 3, "learning_rate": 5e-6, "adam_betas": [0.9, 0.98]}
    for heading in ("Usage", "Search", "Sentence Transformers", "Evaluation", "Training", "Limitations", "Citation"):
        assert re.search(rf"^##+ {heading}$", text, re.MULTILINE), heading
    assert "zeng-etal-2025" in text
    assert "zhou-etal-2024-marvel" in text
    assert "/home/me" not in text
    assert "\n\n\n" not in text


def test_metadata_is_complete_and_follows_the_rules_of_the_hub(folder: Path) -> None:
    run = {
        **RUN,
        "dataset": "org/scenes",
        "base_model": ["openai/clip", "google/t5"],
        "license": "mit",
        "language": ["en"],
    }
    text = write_model_card(folder, run=run, results=RESULTS, repo_id="org/ciea-demo").read_text()
    assert metadata_errors(text) == []
    data = metadata(text)
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "feature-extraction", "mit")
    assert "sentence-transformers" in data.tags
    assert data.datasets == ["org/scenes"]
    assert data.base_model == ["openai/clip", "google/t5"]
    found = {(result.metric_name, result.metric_value) for result in data.eval_results}
    assert {("MRR@10", 0.4124), ("MRR@10 (image queries)", 0.39), ("Recall@100", 0.9)} <= found
    assert {result.dataset_name for result in data.eval_results} == {"OpenMoji Scenes (small)"}
    assert {result.dataset_split for result in data.eval_results} == {"test"}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"license": "my own"}, '"license" must be one of'),
        ({"datasets": ["/home/me/data"]}, '"datasets[0]" with value "/home/me/data" is not valid'),
        ({"base_model": ""}, '"base_model[0]" is not allowed to be empty'),
        ({"language": "English"}, '"language" with value "English" is not valid'),
        ({"tags": "one"}, '"tags" must be an array'),
        ({"pipeline_tag": "search"}, '"pipeline_tag" must be one of'),
        (
            {"model-index": [{"name": "a", "results": [{"task": {}}]}]},
            '"model-index[0].results[0].task.type" is required',
        ),
    ],
)
def test_the_rules_reject_invalid_metadata(change: dict[str, Any], error: str) -> None:
    assert any(found.startswith(error) for found in metadata_errors(f"---\n{yaml.safe_dump(change)}---\n"))


def test_local_paths_are_not_in_the_card(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["_name_or_path"] = str(tmp_path / "t5")
    (folder / "config.json").write_text(json.dumps(config))
    text = write_model_card(
        folder, run={"dataset": str(tmp_path), "base_model": str(tmp_path)}, results=RESULTS
    ).read_text()
    assert metadata_errors(text) == []
    assert metadata(text).base_model is None
    assert metadata(text).datasets is None
    assert metadata(text).license == "unknown"  # nobody stated one
    assert "The licence of the weights is unknown. The code" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("model", ["org/start", "a/b"])
def test_a_configured_model_is_not_taken_for_a_repository(folder: Path, model: str) -> None:
    """Training has decided whether it was a local path, and recorded that."""
    config = {"model": model, "dataset": "c/d"}
    local = write_model_card(folder, run={"config": config, "base_model": [], "datasets": []}).read_text()
    assert (metadata(local).base_model, metadata(local).datasets) == (None, None)
    (folder / "README.md").unlink()
    again = render_model_card(folder)  # from the record in the folder
    assert again == local
    hub = metadata(render_model_card(folder, run={"config": config, "base_model": [model], "datasets": ["c/d"]}))
    assert (hub.base_model, hub.datasets, hub.license) == ([model], ["c/d"], "unknown")


def test_base_models_and_their_licence_come_from_the_towers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["_name_or_path"] = "google/t5-base"
    (folder / "config.json").write_text(json.dumps(config))
    data = metadata(render_model_card(folder))
    assert (data.base_model, data.license) == (["google/t5-base"], "unknown")
    assert metadata(render_model_card(folder, run={"license": "mit"})).license == "mit"


def test_the_record_written_by_training(folder: Path) -> None:
    command = ["/somewhere/training/train.py", "--preset", "demo", "--output-dir", "/home/me/runs/ciea"]
    run = {"command": command, "data_fingerprint": {"train": "aa", "dev": "bb"}}
    text = write_model_card(folder, run=run).read_text()
    assert "\naccelerate launch training/train.py --preset demo --output-dir ciea\n" in text
    assert "- Data fingerprint: train `aa`, dev `bb`" in text
    assert 'AutoModel.from_pretrained("path/to/model"' in text


def test_the_card_of_a_folder_without_records_makes_no_claims(folder: Path) -> None:
    text = write_model_card(folder).read_text()
    assert metadata_errors(text) == []
    assert "No record of the training run is available." in text
    assert "No evaluation results are available." in text
    assert metadata(text).eval_results is None
    assert not (folder / "run.json").exists()


def test_files_of_the_run_folder_are_read(folder: Path) -> None:
    (folder.parent / "training_config.yaml").write_text("seed: 11\ndataset: /data/x/scenes\n")
    (folder.parent / "run.json").write_text(json.dumps({"git_revision": "beef", "command": "train --seed 11"}))
    (folder / "eval_results.json").write_text(json.dumps({"test": RESULTS, "caption only": {**RESULTS, "split": None}}))
    text = render_model_card(folder)
    for fact in ("- Seed: 11", "`beef`", "train --seed 11", "OpenMoji Scenes (small), test", "dataset: scenes"):
        assert fact in text, fact
    (folder / "run.json").write_text(
        json.dumps({"git_revision": "cafe"})
    )  # takes precedence over the record of the run folder
    assert "`cafe`" in render_model_card(folder)


def test_files_next_to_unrelated_folders_are_not_read(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "models" / "mine")
    (other.parent / "eval_results.json").write_text(json.dumps(RESULTS))
    (other.parent / "run.json").write_text("[1, 2]")
    (folder.parent / "eval_results.json").write_text(json.dumps(RESULTS))  # results of another model
    for location in (other, folder):
        assert "OpenMoji Scenes" not in render_model_card(location)


def test_the_record_is_saved_so_that_the_card_can_be_generated_again(folder: Path, tmp_path: Path) -> None:
    first = write_model_card(folder, run=RUN, results=RESULTS).read_text()
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "best")
    assert render_model_card(moved) == first
    assert "/home/me" not in (moved / "run.json").read_text()
    assert 'from_pretrained("org/name"' in render_model_card(moved, repo_id="org/name")


def test_the_card_of_a_marvel_model(tmp_path: Path) -> None:
    tiny_model(use_extractor=False).save_pretrained(tmp_path / "m")
    text = write_model_card(tmp_path / "m").read_text()
    assert "# MARVEL" in text
    assert "| Extractor | no |" in text


def test_invalid_arguments_raise_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown key\(s\) sede; valid keys: command, config"):
        write_model_card(folder, run={"sede": 1})
    with pytest.raises(ValueError, match="`results` must be the output of"):
        write_model_card(folder, results={"mrr@10": "high"})
    with pytest.raises(FileNotFoundError, match=r"config\.json not found"):
        write_model_card(tmp_path)
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: cannot be read"):
        write_model_card(folder)


def test_generated_cards_are_recognised(folder: Path) -> None:
    assert is_generated(render_model_card(folder))
    assert not is_generated("# My model\n")


def test_hub_ids_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "best").mkdir(parents=True)
    assert is_hub_id("google/t5-base")
    for value in ("runs/best", "/data", "a/b/c", "t5", "../x", "", None, 3, "org/with space"):
        assert not is_hub_id(value), value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/data", "data"),
        ("--out=/home/me/runs/x --lr 1e-5", "--out=x --lr 1e-5"),
        ("C:\\Users\\me\\data", "data"),
        ("~/secret/data", "data"),
        ("https://huggingface.co/org/name", "https://huggingface.co/org/name"),
        ("training/train.py", "training/train.py"),
        ({"a": ["/x/y/z", 1, None]}, {"a": ["z", 1, None]}),
    ],
)
def test_absolute_paths_are_shortened(value: Any, expected: Any) -> None:
    assert without_private_paths(value) == expected


def test_values_of_a_run_cannot_leave_their_place(folder: Path) -> None:
    """Neither HTML, nor ends of a code block, a cell, a line or a code span, reach the page."""
    forged = "x\n```\n<script>alert(1)</script>\n| a | b |\n# Forged `code`\x1b[31m"
    evaluation = {**RESULTS, "dataset": forged, "settings": {"content": forged}, "by_kind": {forged: {"mrr@10": 0.5}}}
    run = {**RUN, "command": ["train.py", "--output_dir", forged], "config": {"output_dir": forged}, "dataset": forged}
    run |= {"versions": {"torch": forged}, "git_revision": forged, "data_fingerprint": {forged: forged}}
    text = write_model_card(folder, run=run, results=evaluation, repo_id="org/ciea-demo").read_text()
    body = text.partition("\n---\n")[2]
    blocks = re.compile(r"^(`{3,})\w*\n.*?^\1$", re.DOTALL | re.MULTILINE)
    outside = blocks.sub("", body)
    assert len(blocks.findall(body)) == 7
    assert "<script>" in body
    assert "<script>" not in re.sub(r"(?<!\\)`[^`\n]*`", "", outside)
    assert "\x1b" not in text
    assert not re.search(r"^#+ Forged", outside, re.MULTILINE)
    rows = [line for line in outside.splitlines() if line.startswith(("| queries", "| all", "| x"))]
    assert len(rows) == 3
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
