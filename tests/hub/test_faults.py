"""Errors of the Hub: transient ones are retried, others are explained, and the repository never holds half a model."""

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
NOT_COMMITTED = "Nothing was committed; org/ciea is unchanged. Run the same command again to continue"


@pytest.fixture
def hub(hub: MemoryHub) -> MemoryHub:
    hub.create("org/ciea")
    return hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model().save_pretrained(folder, max_shard_size="100KB")
    return folder


def assert_push_fails(hub: MemoryHub, folder: Path, message: str, repo_id: str = "org/ciea") -> str:
    """Push, expect an error, check that the repositories are unchanged, and return the message."""
    before = hub.snapshot()
    with pytest.raises(HubError, match=message) as caught:
        push(folder, repo_id)
    assert {name: hub.snapshot()[name] for name in before} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("where", [UPLOAD, COMMIT, "/preupload/", "/objects/batch", "/lfs/verify", "GET .*/tree/"])
@pytest.mark.parametrize("status", [500, 503, None], ids=["500", "503", "dropped"])
def test_a_transient_error_is_retried(hub: MemoryHub, saved: Path, where: str, status: int | None) -> None:
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
        (500, r"after 4 attempts: the Hub returned server error 500 \(message of the Hub: injected\)"),
        (503, "after 4 attempts: the Hub returned server error 503"),
        (None, "after 4 attempts: the Hub is unreachable or the connection was lost"),
    ],
    ids=["500", "503", "dropped"],
)
def test_a_lasting_error_changes_nothing_and_the_next_push_continues(
    hub: MemoryHub, saved: Path, where: str, status: int | None, message: str
) -> None:
    hub.faults.append(Fault(where, status, times=ALWAYS))
    assert NOT_COMMITTED in assert_push_fails(hub, saved, message)
    hub.faults.clear()
    uploaded = set(hub.objects)
    hub.requests.clear()
    push(saved, "org/ciea")
    assert {path.name for path in saved.iterdir()} <= set(hub.repositories["org/ciea"].files())
    sent = {request.rpartition("/")[2] for request in hub.received(UPLOAD)}
    assert not sent & uploaded
    assert (where == COMMIT) == (sent == set())


def test_an_interrupted_upload_continues(hub: MemoryHub, saved: Path) -> None:
    shards = sorted(saved.glob("*.safetensors"))
    assert len(shards) > 2
    hub.faults.append(Fault(r"^POST .*/objects/batch", times=0))
    hub.faults.append(Fault(UPLOAD, 403, times=1, message="no"))
    assert_push_fails(hub, saved, "has no write access")
    uploaded = len(hub.objects)
    assert 0 < uploaded < len(shards)
    hub.requests.clear()
    push(saved, "org/ciea")
    assert len(hub.received(UPLOAD)) == len(shards) - uploaded


def test_a_commit_whose_response_is_lost_is_not_repeated(hub: MemoryHub, saved: Path) -> None:
    hub.faults.append(Fault(COMMIT, after=True))
    result = push(saved, "org/ciea")
    repository = hub.repositories["org/ciea"]
    assert len(repository.commits) == 2
    assert result.commit == repository.refs["refs/heads/main"]


def test_a_pull_request_whose_response_is_lost_is_not_opened_twice(hub: MemoryHub, saved: Path) -> None:
    hub.faults.append(Fault(COMMIT, after=True))
    with pytest.raises(HubError, match=r"the pull request may have been opened anyway; check http.*/discussions"):
        push(saved, "org/ciea", create_pr=True)
    assert [ref for ref in hub.repositories["org/ciea"].refs if "/pr/" in ref] == ["refs/pr/1"]


def test_a_concurrent_commit_does_not_mix_two_models(hub: MemoryHub, saved: Path, tmp_path: Path) -> None:
    push(saved, "org/ciea")
    repository = hub.repositories["org/ciea"]

    class Intruder(Fault):
        def __getattribute__(self, name: str) -> object:
            if name == "status":  # read at the moment of the error
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
            "the token is invalid; log in again with `hf auth login`, or set HF_TOKEN",
        ),
        (
            READER,
            "org/ciea",
            "the token has no write access to org/ciea: .* You don't have the rights to write to org/ciea",
        ),
        (READER, "org/new", "the token has no write access to org/new: use one with the role 'write'"),
    ],
)
def test_rejected_tokens(
    hub: MemoryHub, saved: Path, monkeypatch: pytest.MonkeyPatch, token: str, repo_id: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert_push_fails(hub, saved, message, repo_id)
    assert hub.received(UPLOAD) == []
    assert "org/new" not in hub.repositories


def test_missing_token(hub: MemoryHub, saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert_push_fails(hub, saved, "authentication failed.*: log in with `hf auth login`, or set HF_TOKEN")


@pytest.mark.parametrize("status", [403, 413, 402, 507])
def test_a_full_quota_is_not_retried(hub: MemoryHub, saved: Path, status: int) -> None:
    server_message = "Private repository storage limit reached, please upgrade your plan."
    hub.faults.append(Fault("/objects/batch", status, times=ALWAYS, message=server_message))
    text = assert_push_fails(hub, saved, "the storage of org on the Hub is full: delete files or upgrade the plan")
    assert server_message.rstrip(".") in text
    assert "attempts" not in text  # a retry cannot succeed
    assert hub.faults[0].times == ALWAYS - 1


def test_a_rate_limit_is_retried_after_a_wait(hub: MemoryHub, saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.faults.append(Fault(COMMIT, 429, times=2, message="slow down"))
    with caplog.at_level(logging.WARNING, logger="ciea_hf"):
        push(saved, "org/ciea")
    waits = [record.getMessage() for record in caplog.records]
    assert len(waits) == 2
    assert "rate limit reached" in waits[0]
    assert "retrying in 2 s (attempt 2 of 4 failed)" in waits[1]


def test_an_interrupted_push_explains_how_to_continue(hub: MemoryHub, saved: Path, caplog: pytest.LogCaptureFixture,
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = hub.snapshot()
    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", interrupt)
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING, logger="ciea_hf"):
        push(saved, "org/ciea")
    assert NOT_COMMITTED in caplog.text
    assert hub.snapshot() == before


def test_an_unreachable_hub_is_reported(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_hub(tmp_path, monkeypatch):
        pass  # the port is closed again
    with pytest.raises(HubError, match="org/ciea was not pushed after 4 attempts: the Hub is unreachable"):
        push(saved, "org/ciea")


def test_offline_mode_is_reported(hub: MemoryHub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_push_fails(hub, saved, "offline mode is on")


def test_pull_of_a_missing_repository_or_revision(
    hub: MemoryHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match="org/missing was not downloaded: repository org/missing not found"):
        pull("org/missing")
    with pytest.raises(HubError, match="revision not found in org/ciea"):
        pull("org/ciea", revision="v9")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.create("org/private", private=True)
    with pytest.raises(HubError, match="org/private is private or does not exist: log in with `hf auth login`"):
        pull("org/private")


@pytest.mark.parametrize("status", [500, 503, None], ids=["500", "503", "dropped"])
def test_pull_retries_a_transient_error(hub: MemoryHub, saved: Path, status: int | None) -> None:
    push(saved, "org/ciea")
    hub.faults.append(Fault("^GET /org/ciea/resolve/.*safetensors", status))
    folder = pull("org/ciea")
    assert hub.faults[0].times == 0
    assert (folder / "model.safetensors.index.json").is_file()


def test_a_failed_pull_is_reported_and_continues(hub: MemoryHub, saved: Path) -> None:
    push(saved, "org/ciea")
    hub.faults.append(Fault("^(GET|HEAD) /org/ciea/resolve/.*00002", 403, times=ALWAYS, message="no"))
    with pytest.raises(HubError, match="org/ciea was not downloaded: the token has no read access to org/ciea"):
        pull("org/ciea")
    hub.faults.clear()
    assert (pull("org/ciea") / "config.json").is_file()


def test_pull_uses_the_cache_if_the_hub_is_unreachable(
    hub: MemoryHub, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push(saved, "org/ciea")
    folder = pull("org/ciea")
    hub.faults.append(Fault("/api/models", 503, times=ALWAYS))
    with caplog.at_level(logging.WARNING, logger="ciea_hf"):
        assert pull("org/ciea") == folder
    assert "using the cached model" in caplog.text
    assert pull("org/ciea", local_files_only=True) == folder
    with pytest.raises(HubError, match="org/other was not downloaded: not found in the cache"):
        pull("org/other", local_files_only=True)
