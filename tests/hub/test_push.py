"""Push over HTTP with the real client: a complete repository in one commit, and no file sent twice."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch

import ciea_hf
from ciea_hf import CIEAModel
from ciea_hf.hub import HubError, push
from ciea_hf.model_cards import write_model_card
from tests.support.helpers import tiny_model
from tests.support.hub_rules import metadata_errors
from tests.support.hub_server import READER
from tests.support.toy_training import BACKBONES, save_backbones

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hub_server import MemoryHub

COMPLETE = {
    "README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "modeling_ciea.py",
    "configuration_ciea.py", "processing_ciea.py", "encoding_ciea.py",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_push_creates_a_complete_repository_in_one_commit(hub: MemoryHub, folder: Path) -> None:
    result = ciea_hf.push(folder, "org/ciea", private=True, commit_message="First")
    repository = hub.repositories["org/ciea"]
    assert repository.private
    assert [message for _, message in repository.log.values()] == ["initial commit", "First"]
    assert COMPLETE <= set(repository.files()) == {".gitattributes", *result.sent}
    assert repository.files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert (result.commit, result.unchanged, result.deleted) == (repository.refs["refs/heads/main"], (), ())
    assert result.url == f"{hub.url}/org/ciea/commit/{result.commit}"
    card = repository.files()["README.md"].decode()
    assert 'AutoModel.from_pretrained("org/ciea"' in card
    assert metadata_errors(card) == []
    assert not (folder / "README.md").exists()  # the folder of the user is not changed


def test_pushing_again_sends_and_commits_nothing(hub: MemoryHub, folder: Path) -> None:
    first = push(folder, "org/ciea")
    hub.requests.clear()
    again = push(folder, "org/ciea")
    assert (again.sent, again.commit) == ((), first.commit)
    assert set(again.unchanged) == set(first.sent)
    assert hub.received("POST|PUT") == []


def test_only_what_changed_is_sent(hub: MemoryHub, folder: Path) -> None:
    push(folder, "org/ciea")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "extractor_dropout": 0.5}))
    hub.requests.clear()
    assert push(folder, "org/ciea").sent == ("config.json",)
    assert hub.received("PUT") == []
    assert len(hub.repositories["org/ciea"].commits) == 3


def test_a_model_in_memory_makes_the_same_repository(hub: MemoryHub, folder: Path) -> None:
    model = ciea_hf.CIEAModel.from_pretrained(folder)
    model.save_pretrained(folder)  # saving a loaded model writes default values too
    push(folder, "org/ciea-a")
    push(model, "org/ciea-b")
    url = model.push_to_hub("org/ciea-c")
    contents = []
    for name in ("ciea-a", "ciea-b", "ciea-c"):
        files = dict(hub.repositories[f"org/{name}"].files())
        contents.append({**files, "README.md": files["README.md"].replace(name.encode(), b"NAME")})
    assert contents[0] == contents[1] == contents[2]
    assert set(contents[0]) >= COMPLETE
    assert url == f"{hub.url}/org/ciea-c/commit/{hub.repositories['org/ciea-c'].refs['refs/heads/main']}"
    assert len(hub.repositories["org/ciea-c"].commits) == 2


def test_save_pretrained_with_push_to_hub(hub: MemoryHub, folder: Path, tmp_path: Path) -> None:
    model = ciea_hf.CIEAModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="org/d", private=True, commit_message="Saved")
    repository = hub.repositories["org/d"]
    assert repository.private
    assert set(repository.files()) >= COMPLETE
    assert [message for _, message in repository.log.values()] == ["initial commit", "Saved"]


def test_sharded_and_single_weights_replace_each_other(hub: MemoryHub, folder: Path) -> None:
    model = ciea_hf.CIEAModel.from_pretrained(folder)
    push(model, "org/ciea", max_shard_size="100KB")
    files = set(hub.repositories["org/ciea"].files())
    shards = {name for name in files if name.startswith("model-0")}
    assert len(shards) > 1
    assert "model.safetensors.index.json" in files
    result = push(folder, "org/ciea")
    assert set(result.deleted) == {*shards, "model.safetensors.index.json"}
    assert {name for name in hub.repositories["org/ciea"].files() if "safetensors" in name} == {"model.safetensors"}
    assert len(hub.repositories["org/ciea"].commits) == 3  # one commit removes and adds


def test_old_pickled_weights_are_removed_and_other_files_are_kept(hub: MemoryHub, folder: Path) -> None:
    repository = hub.create("org/ciea")
    old = {**repository.files(), "pytorch_model.bin": b"old", "figure.png": b"kept", "notes.txt": b"kept"}
    repository.add_commit("refs/heads/main", old, "by hand", repository.refs["refs/heads/main"])
    assert push(folder, "org/ciea").deleted == ("pytorch_model.bin",)
    assert {"figure.png", "notes.txt"} <= set(repository.files())


def test_a_pull_request_does_not_change_main(hub: MemoryHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = hub.create("org/ciea").refs["refs/heads/main"]
    monkeypatch.setenv("HF_TOKEN", READER)  # read access is enough to open a pull request
    result = push(folder, "org/ciea", create_pr=True, commit_message="Better")
    repository = hub.repositories["org/ciea"]
    assert repository.refs["refs/heads/main"] == main
    assert set(repository.files("refs/pr/1")) >= COMPLETE
    assert result.url == f"{hub.url}/org/ciea/discussions/1"


def test_push_to_an_open_pull_request(hub: MemoryHub, folder: Path) -> None:
    hub.create("org/ciea")
    push(folder, "org/ciea", create_pr=True)
    (folder / "LICENSE").write_text("Apache-2.0")
    assert push(folder, "org/ciea", revision="refs/pr/1").sent == ("LICENSE",)
    repository = hub.repositories["org/ciea"]
    assert "LICENSE" in repository.files("refs/pr/1")
    assert "LICENSE" not in repository.files("main")


def test_a_new_branch_is_created_for_a_revision(hub: MemoryHub, folder: Path) -> None:
    push(folder, "org/ciea", revision="v2")
    repository = hub.repositories["org/ciea"]
    assert set(repository.files("v2")) >= COMPLETE
    assert set(repository.files("main")) == {".gitattributes"}
    push(folder, "org/ciea")
    assert push(folder, "org/ciea", revision="v3").sent == ()  # the files equal those of main, but the branch is new
    assert "refs/heads/v3" in repository.refs


def test_a_card_written_by_hand_is_kept(hub: MemoryHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push(folder, "org/ciea")
    assert hub.repositories["org/ciea"].files()["README.md"].endswith(b"# Mine\n")
    (folder / "README.md").unlink()  # the next card is a generated one
    (folder / "LICENSE").write_text("MIT")
    assert push(folder, "org/ciea").sent == ("LICENSE",)
    assert hub.repositories["org/ciea"].files()["README.md"].endswith(b"# Mine\n")


def test_the_run_record_is_pushed_with_its_weights_only(hub: MemoryHub, folder: Path) -> None:
    write_model_card(folder, run={"git_revision": "cafe"}, results={"mrr@10": 0.4})
    push(folder, "org/ciea")
    repository = hub.repositories["org/ciea"]
    assert b"`cafe`" in repository.files()["README.md"]
    assert {"run.json", "eval_results.json"} <= set(repository.files())
    model = ciea_hf.CIEAModel.from_pretrained(folder)
    assert "README.md" not in push(model, "org/ciea").sent  # equal weights: the card with the record stays
    with torch.no_grad():
        model.logit_scale += 1
    result = push(model, "org/ciea")
    assert set(result.deleted) == {"run.json", "eval_results.json"}
    assert b"`cafe`" not in repository.files()["README.md"]


def test_dry_run_writes_everything_and_sends_nothing(hub: MemoryHub, folder: Path, tmp_path: Path) -> None:
    result = push(folder, "org/ciea", dry_run=tmp_path / "preview")
    assert hub.requests == []
    assert COMPLETE <= {path.name for path in (tmp_path / "preview").iterdir()} == set(result.sent)
    assert 'from_pretrained("org/ciea"' in (tmp_path / "preview" / "README.md").read_text()
    assert result.commit is None
    with pytest.raises(FileExistsError, match=r"`dry_run`: .* is not empty"):
        push(folder, "org/ciea", dry_run=tmp_path)


def test_unrelated_files_are_not_pushed(hub: MemoryHub, folder: Path) -> None:
    (folder / ".secret").write_text("token")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / "train.log").write_text("")
    sent = push(folder, "org/ciea").sent
    assert not {".secret", "__pycache__/x.pyc", "train.log"} & set(sent)


def test_local_paths_of_towers_are_not_published(hub: MemoryHub, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["_name_or_path"] = "google/t5-base"
    config["vision_config"]["_name_or_path"] = "/home/me/models/tower"
    (folder / "config.json").write_text(json.dumps(config))
    push(folder, "org/ciea")
    published = json.loads(hub.repositories["org/ciea"].files()["config.json"])
    del config["vision_config"]["_name_or_path"]
    assert published == config
    assert push(folder, "org/ciea").sent == ()


def test_arguments_of_transformers_are_accepted(hub: MemoryHub, transformers_log: pytest.LogCaptureFixture) -> None:
    model: Any = tiny_model()
    model.push_to_hub("org/ciea", tags=["x"], commit_description="y", commit_message="mine")
    assert set(hub.repositories["org/ciea"].files()) >= COMPLETE
    assert "push_to_hub ignores commit_description, tags" in transformers_log.text


def test_relative_folders_of_towers_are_not_taken_for_hub_ids(
    hub: MemoryHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_backbones(tmp_path / "towers")
    CIEAModel.from_vision_text_pretrained(*(f"towers/{name}" for name in BACKBONES)).save_pretrained("my/model")
    model = CIEAModel.from_pretrained("my/model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    push(model, "org/ciea")
    files = hub.repositories["org/ciea"].files()
    assert b"towers" not in files["README.md"] + files["config.json"]
    assert b"my/model" not in files["README.md"] + files["config.json"]


def test_an_incomplete_folder_is_rejected_before_any_request(hub: MemoryHub, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "layers_ciea.py").unlink()
    (folder / "training_args.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="not a complete, safe CIEA model") as caught:
        push(folder, "org/ciea")
    for problem in (
        "vocabulary of the tokenizer is missing",
        "layers_ciea.py is missing",
        "training_args.bin is or may be a pickle",
    ):
        assert problem in str(caught.value)
    assert hub.requests == []


def test_arguments_are_checked(hub: MemoryHub, folder: Path) -> None:
    with pytest.raises(ValueError, match="`repo_id` must be like 'owner/name'; got 'ciea'"):
        push(folder, "ciea")
    with pytest.raises(ValueError, match="`repo_id` must be like 'owner/name'"):
        push(folder, "org/with space")
    with pytest.raises(ValueError, match="`revision` must be a branch"):
        push(folder, "org/ciea", revision="0" * 40)
    with pytest.raises(TypeError, match="max_shard_size: supported for a model only"):
        push(folder, "org/ciea", max_shard_size="1MB")
    for given in (folder, tiny_model()):
        with pytest.raises(
            TypeError, match=r"unknown argument\(s\) privat; valid arguments: .*, private, .*max_shard_size"
        ):
            push(given, "org/ciea", privat=True)
    with pytest.raises(FileNotFoundError, match="folder not found"):
        push(folder / "absent", "org/ciea")
    assert hub.requests == []


def test_a_private_push_to_a_public_repository_is_rejected(hub: MemoryHub, folder: Path) -> None:
    hub.create("org/ciea")
    with pytest.raises(HubError, match="org/ciea exists and is public"):
        push(folder, "org/ciea", private=True)
    assert set(hub.repositories["org/ciea"].files()) == {".gitattributes"}


def test_invalid_card_metadata_is_reported_before_weights_are_sent(hub: MemoryHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: my own\n---\n# Mine\n")
    with pytest.raises(HubError, match=r'rejects the metadata of README\.md: .*"license\W+ must be one of'):
        push(folder, "org/ciea")
    assert hub.received("PUT") == []


def test_a_successful_push_logs_no_warnings(hub: MemoryHub, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ciea_hf"):
        push(folder, "org/ciea")
    assert caplog.records == []
