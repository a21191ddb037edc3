"""What goes wrong on the Hub: retried where that helps, said clearly, and never half a model left behind."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pytest

from ciea_hf.hub import HubError, pull, push
from tests.support.helpers import tiny_model
from tests.support.hub_client import loopback_hub
from tests.support.hub_server import READER
from tests.support.hub_state import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hub_server import MemoryHub

UPLOAD, COMMIT, ALWAYS = r"^PUT /lfs", r"^POST .*/commit/", 10_000
AS_IT_WAS = "The files of org/ciea are as they were: nothing was committed. Run the same again to go on"


@pytest.fixture
def hub(hub: MemoryHub) -> MemoryHub:
    hub.create("org/ciea")
    return hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model().save_pretrained(folder, max_shard_size="100KB")
    return folder


def fails(hub: MemoryHub, folder: Path, message: str, repo_id: str = "org/ciea") -> str:
    """Push, expect the message, and see that the Hub is as it was."""
    before = hub.snapshot()
    with pytest.raises(HubError, match=message) as caught:
        push(folder, repo_id)
    assert {name: hub.snapshot()[name] for name in before} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("where", [UPLOAD, COMMIT, "/preupload/", "/objects/batch", "/lfs/verify", "GET .*/tree/"])
@pytest.mark.parametrize("status", [500, 503, None], ids=["500", "503", "dropped"])
def test_a_passing_fault_is_retried(hub: MemoryHub, saved: Path, where: str, status: int | None) -> None:
    hub.faults.append(Fault(where, status))
    result = push(saved, "org/ciea")
    assert hub.faults[0].times == 0
    assert len(hub.repositories["org/ciea"].commits) == 2
    assert set(result.sent) >= {path.name for path in saved.iterdir()}
    assert push(saved, "org/ciea").sent == ()


@pytest.mark.parametrize("where", [UPLOAD, COMMIT])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, r"after 4 attempts: the Hub answers with status 500, it is in trouble \(the Hub says: injected\)"),
        (503, "after 4 attempts: the Hub answers with status 503, it is in trouble"),
        (None, "after 4 attempts: the Hub could not be reached, or the connection was lost"),
    ],
    ids=["500", "503", "dropped"],
)
def test_a_lasting_fault_leaves_the_hub_as_it_was_and_the_next_push_goes_on(
    hub: MemoryHub, saved: Path, where: str, status: int | None, message: str
) -> None:
    hub.faults.append(Fault(where, status, times=ALWAYS))
    assert AS_IT_WAS in fails(hub, saved, message)
    hub.faults.clear()
    arrived = set(hub.objects)
    hub.requests.clear()
    push(saved, "org/ciea")
    assert {path.name for path in saved.iterdir()} <= set(hub.repositories["org/ciea"].files())
    sent = {request.rpartition("/")[2] for request in hub.received(UPLOAD)}
    assert not sent & arrived  # what had arrived is not sent twice
    assert (where == COMMIT) == (sent == set())


def test_half_an_upload_is_gone_on_with(hub: MemoryHub, saved: Path) -> None:
    shards = sorted(saved.glob("*.safetensors"))
    assert len(shards) > 2
    hub.faults.append(Fault(r"^POST .*/objects/batch", times=0))
    hub.faults.append(Fault(UPLOAD, 403, times=1, message="no"))
    fails(hub, saved, "403|may not write")
    arrived = len(hub.objects)
    assert 0 < arrived < len(shards)
    hub.requests.clear()
    push(saved, "org/ciea")
    assert len(hub.received(UPLOAD)) == len(shards) - arrived


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: MemoryHub, saved: Path) -> None:
    hub.faults.append(Fault(COMMIT, after=True))
    result = push(saved, "org/ciea")
    repository = hub.repositories["org/ciea"]
    assert len(repository.commits) == 2
    assert result.commit == repository.refs["refs/heads/main"]


def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(hub: MemoryHub, saved: Path) -> None:
    hub.faults.append(Fault(COMMIT, after=True))
    with pytest.raises(HubError, match=r"a pull request may have been opened all the same; look at http.*/discussions"):
        push(saved, "org/ciea", create_pr=True)
    assert [ref for ref in hub.repositories["org/ciea"].refs if "/pr/" in ref] == ["refs/pr/1"]


def test_a_commit_of_somebody_else_between_leaves_no_mixture(hub: MemoryHub, saved: Path, tmp_path: Path) -> None:
    push(saved, "org/ciea")
    repository = hub.repositories["org/ciea"]

    class Intruder(Fault):
        def __getattribute__(self, name: str) -> object:
            if name == "status":  # asked for when the fault happens
                files = {**repository.files(), "notes.txt": b"theirs", "tokenizer.json": b"theirs"}
                repository.add_commit("refs/heads/main", files, "theirs", repository.refs["refs/heads/main"])
            return super().__getattribute__(name)

    folder = shutil.copytree(saved, tmp_path / "changed")
    (folder / "LICENSE").write_text("Apache-2.0")
    hub.faults.append(Intruder("/preupload/", 503))
    push(folder, "org/ciea")
    assert repository.files()["notes.txt"] == b"theirs"
    for path in folder.iterdir():
        assert repository.files()[path.name] == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        (
            "hf_wrong",
            "org/ciea",
            "the token it was shown is not valid; log in again with `hf auth login`, or set HF_TOKEN",
        ),
        (READER, "org/ciea", "your token may not write to org/ciea: .* You don't have the rights to write to org/ciea"),
        (READER, "org/new", "your token may not write to org/new: take one with the role 'write'"),
    ],
)
def test_tokens(
    hub: MemoryHub, saved: Path, monkeypatch: pytest.MonkeyPatch, token: str, repo_id: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    fails(hub, saved, message, repo_id)
    assert hub.received(UPLOAD) == []
    assert "org/new" not in hub.repositories


def test_no_token(hub: MemoryHub, saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    fails(hub, saved, "the Hub does not know who you are.*: log in with `hf auth login`, or set HF_TOKEN")


@pytest.mark.parametrize("status", [403, 413, 402, 507])
def test_full_quota(hub: MemoryHub, saved: Path, status: int) -> None:
    words = "Private repository storage limit reached, please upgrade your plan."
    hub.faults.append(Fault("/objects/batch", status, times=ALWAYS, message=words))
    text = fails(hub, saved, "the storage of org on the Hub is full: free or buy space")
    assert words.rstrip(".") in text
    assert "attempts" not in text  # trying again would not help
    assert hub.faults[0].times == ALWAYS - 1


def test_rate_limit_is_waited_for(hub: MemoryHub, saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.faults.append(Fault(COMMIT, 429, times=2, message="slow down"))
    with caplog.at_level(logging.WARNING, logger="ciea_hf"):
        push(saved, "org/ciea")
    waits = [record.getMessage() for record in caplog.records]
    assert len(waits) == 2
    assert "takes no more requests" in waits[0]
    assert "trying again in 2 s (2 of 4)" in waits[1]


def test_interrupted_by_the_user(hub: MemoryHub, saved: Path, caplog: pytest.LogCaptureFixture,
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = hub.snapshot()
    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", interrupt)
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING, logger="ciea_hf"):
        push(saved, "org/ciea")
    assert AS_IT_WAS in caplog.text
    assert hub.snapshot() == before


def test_hub_away(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_hub(tmp_path, monkeypatch):
        pass  # the port is closed again
    with pytest.raises(HubError, match="org/ciea was not pushed after 4 attempts: the Hub could not be reached"):
        push(saved, "org/ciea")


def test_offline_mode(hub: MemoryHub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fails(hub, saved, "offline mode is on")


def test_pull_of_what_is_not_there(hub: MemoryHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="org/none was not fetched: there is no repository org/none"):
        pull("org/none")
    with pytest.raises(HubError, match="org/ciea has no such revision"):
        pull("org/ciea", revision="v9")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.create("org/private", private=True)
    with pytest.raises(HubError, match="org/private is private or does not exist: log in with `hf auth login`"):
        pull("org/private")


@pytest.mark.parametrize("status", [500, 503, None], ids=["500", "503", "dropped"])
def test_pull_retries_a_passing_fault(hub: MemoryHub, saved: Path, status: int | None) -> None:
    push(saved, "org/ciea")
    hub.faults.append(Fault("^GET /org/ciea/resolve/.*safetensors", status))
    folder = pull("org/ciea")
    assert hub.faults[0].times == 0
    assert (folder / "model.safetensors.index.json").is_file()


def test_a_pull_that_fails_in_the_middle_says_so_and_goes_on(hub: MemoryHub, saved: Path) -> None:
    push(saved, "org/ciea")
    hub.faults.append(Fault("^(GET|HEAD) /org/ciea/resolve/.*00002", 403, times=ALWAYS, message="no"))
    with pytest.raises(HubError, match="org/ciea was not fetched: you may not read org/ciea"):
        pull("org/ciea")
    hub.faults.clear()
    assert (pull("org/ciea") / "config.json").is_file()


def test_pull_serves_from_the_cache_when_the_hub_is_away(
    hub: MemoryHub, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push(saved, "org/ciea")
    folder = pull("org/ciea")
    hub.faults.append(Fault("/api/models", 503, times=ALWAYS))
    with caplog.at_level(logging.WARNING, logger="ciea_hf"):
        assert pull("org/ciea") == folder
    assert "the model is taken from the cache" in caplog.text
    assert pull("org/ciea", local_files_only=True) == folder
    with pytest.raises(HubError, match="org/other was not fetched: it is not in the cache"):
        pull("org/other", local_files_only=True)
