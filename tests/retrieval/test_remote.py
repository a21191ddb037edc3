"""Index folders at URLs: the bytes of local ones, interruption, growth, damage, and what readers download."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ciea_hf.retrieval import (
    EncodedCorpus,
    EncodingOptions,
    Retriever,
    encode_corpus,
    encode_shards,
    load_corpus,
    prune,
    verify_corpus,
)
from ciea_hf.retrieval.folder import count_documents, is_encoded_corpus
from ciea_hf.retrieval.indexes.scan import ScanIndex
from ciea_hf.retrieval.indexes.syncing import open_index, sync_index
from ciea_hf.retrieval.location import RemotePath, is_url, local_path, open_location
from ciea_hf.retrieval.manifests import DESCRIPTION, MANIFEST, read_manifest
from tests.support.processes import start
from tests.support.remote_folders import clear_memory, disk_url, remote_content
from tests.support.toy_retrieval import ToyEncoder, dataset_of, folder_content, toy_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "memory://bucket/data.index"
OPTIONS = EncodingOptions(shard_size=2)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    clear_memory()
    yield
    clear_memory()


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards' files that are downloaded."""
    names: list[str] = []
    download = RemotePath.download

    def recorded(self: RemotePath, target: Path) -> None:
        names.append(self.name)
        download(self, target)

    monkeypatch.setattr(RemotePath, "download", recorded)
    return names


def without_entries(folder: Path) -> dict[str, bytes]:
    """Files of an index folder that are downloaded: the manifest holds the entries of the shards."""
    found = folder_content(folder)
    return {name: content for name, content in found.items() if name == MANIFEST or not name.endswith(".json")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://bucket/x", True), ("memory://x", True), ("zip://a::s3://b/c.zip", True), ("file:///x", True),
     ("C://x", False), ("C:\\x", False), ("/a/b", False), ("data.index", False), ("a/b://c", False), ("x:/y", False)],
)  # fmt: skip
def test_urls_are_told_from_paths(text: str, expected: bool) -> None:
    assert is_url(text) is expected
    assert is_url(Path("s3://bucket/x")) is False  # which has lost a slash
    if not expected:
        assert open_location(text) == Path(text) == local_path(text)


@pytest.mark.parametrize("protocol", ["memory", "disk"])
def test_a_remote_index_has_the_bytes_of_a_local_one(tmp_path: Path, protocol: str) -> None:
    url = URL if protocol == "memory" else disk_url(tmp_path / "remote" / "index")
    local = encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "local", options=OPTIONS)
    corpus = encode_corpus(ToyEncoder(), toy_dataset(), url + "/", options=OPTIONS)
    assert remote_content(url) == folder_content(tmp_path / "local")
    assert folder_content(local_path(url)) == without_entries(tmp_path / "local")
    assert isinstance(corpus.segments[0].vectors.rows, np.memmap)
    np.testing.assert_array_equal(corpus.matrix(), local.matrix())
    assert is_encoded_corpus(url)
    assert not is_encoded_corpus(url + "/nothing")
    assert count_documents(url) == len(local) == 6
    model = ToyEncoder()
    encode_shards(model, toy_dataset(), url, options=OPTIONS)
    assert model.documents_seen == 0
    EncodedCorpus(corpus.segments, corpus.settings).save(url + ".copy")
    np.testing.assert_array_equal(load_corpus(url + ".copy").matrix(), local.matrix())


def killed_uploads(url: str, uploads: int, cache: Path) -> None:
    """Encode, and die by SIGKILL instead of the upload after some."""
    os.environ["CIEA_HF_CACHE"] = str(cache)
    upload = RemotePath.upload
    done: list[RemotePath] = []

    def dying(self: RemotePath, source: Path) -> None:
        if len(done) == uploads:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(self)
        upload(self, source)

    RemotePath.upload = dying  # type: ignore[method-assign]
    encode_corpus(ToyEncoder(), toy_dataset(), url, options=OPTIONS)


@pytest.mark.parametrize(("uploads", "encoded"), [(0, 6), (3, 6), (4, 6), (5, 4), (13, 0)])
def test_a_killed_run_leaves_an_identical_index(tmp_path: Path, cache: Path, uploads: int, encoded: int) -> None:
    url = disk_url(tmp_path / "killed")
    process = start(killed_uploads, url, uploads, cache)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    if uploads:
        with pytest.raises(ValueError, match=rf"{url} is incomplete: \d of 3 shards are missing; repeat `ciea index`"):
            load_corpus(url)
    model = ToyEncoder()
    encode_corpus(model, toy_dataset(), url, options=OPTIONS)
    assert model.documents_seen == encoded
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "whole", options=OPTIONS)
    assert remote_content(url) == folder_content(tmp_path / "whole")


def encode_as(rank: int, url: str, folder: Path) -> None:
    """Encode as one of two machines, whose caches and locks differ; each waits for the other one's first shard."""

    class Waiting(ToyEncoder):
        def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
            (folder / f"rank-{rank}").touch()
            while not (folder / f"rank-{1 - rank}").exists():
                time.sleep(0.02)
            return super().encode_document(inputs, **kwargs)

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "CIEA_HF_CACHE": str(folder / f"cache-{rank}")}
    encode_corpus(Waiting(), toy_dataset(), url, options=EncodingOptions(shard_size=1))


def test_two_machines_fill_one_folder(tmp_path: Path) -> None:
    url = disk_url(tmp_path / "shared")
    processes = [start(encode_as, rank, url, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "alone", options=EncodingOptions(shard_size=1))
    assert remote_content(url) == folder_content(tmp_path / "alone")


def test_explicit_shares_fill_one_folder() -> None:
    first, second, options = ToyEncoder(), ToyEncoder(), EncodingOptions(shard_size=1)
    assert encode_shards(first, toy_dataset(), URL, options=options, shard=(0, 2)) == 3
    assert encode_shards(second, toy_dataset(), URL, options=options, shard=(1, 2)) == 0
    assert (first.documents_seen, second.documents_seen) == (3, 3)
    np.testing.assert_array_equal(load_corpus(URL).matrix(), encode_corpus(ToyEncoder(), toy_dataset()).matrix())


def test_append_and_prune(tmp_path: Path, downloaded: list[str]) -> None:
    old = dataset_of({"a": "red", "b": "tea", "c": "sea"}, {"p": "red", "q": "blue"})
    new = dataset_of({"a": "red", "b": "green tea", "d": "boat"}, {"p": "green", "q": "blue"})
    for folder in (tmp_path / "local", URL):
        encode_shards(ToyEncoder(), old, folder, options=OPTIONS)
    assert downloaded == []
    model = ToyEncoder()
    assert encode_shards(model, new, URL, options=OPTIONS, append=True) == 0
    assert model.documents_seen == 3
    assert len(downloaded) == 3
    assert all(name.endswith(".arrow") for name in downloaded)  # which alone hold the hashes of the documents
    assert sorted(load_corpus(URL).ids) == ["a", "b", "c", "d", "p", "q"]
    assert len(downloaded) == 5 * 3  # each file once
    encode_shards(ToyEncoder(), new, tmp_path / "local", options=OPTIONS, append=True)
    assert prune(URL, new) == prune(tmp_path / "local", new) == 1
    assert remote_content(URL) == folder_content(tmp_path / "local")
    assert verify_corpus(URL) == []
    retrievers = [Retriever.from_corpus(ToyEncoder(), load_corpus(folder)) for folder in (URL, tmp_path / "local")]
    assert retrievers[0].search("green tea", 5) == retrievers[1].search("green tea", 5)
    assert folder_content(local_path(URL)) == without_entries(tmp_path / "local")  # what was removed is gone here, too
    before = len(downloaded)
    load_corpus(URL)
    assert len(downloaded) == before


def test_a_flipped_bit_is_found_and_never_loaded(tmp_path: Path) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), URL, options=OPTIONS)
    sound = remote_content(URL)
    name = next(name for name in sound if name.endswith(".npy") and ".codes" not in name)
    system, root = fsspec.core.url_to_fs(URL)
    content = bytearray(sound[name])
    content[-1] ^= 1
    system.pipe_file(f"{root}/{name}", bytes(content))
    assert verify_corpus(URL) == [f"{URL}/{name} differs from its checksum"]
    load_corpus(URL)  # from the copy, which is sound
    (local_path(URL) / name).unlink()
    with pytest.raises(ValueError, match=rf"{URL}/{name} differs from its checksum; run `ciea index --verify`"):
        load_corpus(URL)
    assert not (local_path(URL) / name).exists()
    system.rm_file(f"{root}/{name}")
    assert verify_corpus(URL) == [f"{URL}/{name} is missing"]
    with pytest.raises(ValueError, match=rf"{URL} is incomplete: {URL}/{name} not found"):
        load_corpus(URL)
    model = ToyEncoder()
    encode_corpus(model, toy_dataset(), URL, options=OPTIONS)
    assert model.documents_seen == 2
    assert remote_content(URL) == sound


def test_a_damaged_copy_is_downloaded_again(downloaded: list[str]) -> None:
    rows = encode_corpus(ToyEncoder(), toy_dataset(), URL, options=OPTIONS).matrix()
    path = next(path for path in (local_path(URL) / "shards").iterdir() if path.name.endswith(".arrow"))
    path.write_bytes(path.read_bytes()[:-1])
    downloaded.clear()
    np.testing.assert_array_equal(load_corpus(URL).matrix(), rows)
    assert downloaded == [path.name]


def test_a_reader_sees_the_old_or_the_new_state() -> None:
    """Threads open the index again and again while documents are appended and pruned."""
    states = [dataset_of({f"{n}-{generation}": f"word{n}" for n in range(5)}) for generation in range(6)]
    valid = {tuple(sorted(state.corpus_ids)) for state in states}
    valid |= {tuple(sorted(one.corpus_ids + two.corpus_ids)) for one, two in itertools.pairwise(states)}
    encode_shards(ToyEncoder(), states[0], URL, options=OPTIONS)
    seen, stopped, errors = [], threading.Event(), []

    def read() -> None:
        while not stopped.is_set():
            try:
                corpus = load_corpus(URL)
                assert len(corpus.matrix()) >= len(corpus)
                seen.append(tuple(sorted(corpus.ids)))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for state in states[1:]:
            encode_shards(ToyEncoder(), state, URL, options=OPTIONS, append=True)
            prune(URL, state)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert set(seen) <= valid
    assert len(set(seen)) > 1


@pytest.fixture
def states() -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of `memory://`: an index, and the index after an append and a prune. The first one is there."""
    store = MemoryFileSystem.store
    encode_shards(ToyEncoder(), dataset_of({"a": "red", "b": "tea"}), URL, options=EncodingOptions(shard_size=1))
    before, changed = dict(store), dataset_of({"a": "red", "c": "sea"})
    encode_shards(ToyEncoder(), changed, URL, options=EncodingOptions(shard_size=1), append=True)
    prune(URL, changed)
    after = dict(store)
    shutil.rmtree(local_path(URL))
    store.clear()
    store.update(before)
    return before, after


def test_an_index_that_changes_during_the_download_is_read_in_its_new_state(
    states: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    download = RemotePath.download

    def changing(self: RemotePath, target: Path) -> None:
        for gone in states[0].keys() - states[1].keys():
            MemoryFileSystem.store.pop(gone, None)
        MemoryFileSystem.store.update(states[1])
        download(self, target)

    monkeypatch.setattr(RemotePath, "download", changing)
    assert sorted(load_corpus(URL).ids) == ["a", "c"]


def test_a_reader_of_an_old_state_does_not_replace_the_copy_of_a_new_one(
    states: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    download, reached, released = RemotePath.download, threading.Event(), threading.Event()

    def waiting(self: RemotePath, target: Path) -> None:
        if not reached.is_set():
            reached.set()
            released.wait(30)
        download(self, target)

    monkeypatch.setattr(RemotePath, "download", waiting)
    slow = threading.Thread(target=load_corpus, args=(URL,))
    slow.start()
    assert reached.wait(30)
    MemoryFileSystem.store.update(states[1])  # the shards of the old state are not removed yet
    fast = threading.Thread(target=load_corpus, args=(URL,))
    fast.start()
    fast.join(0.5)  # long enough to overtake, if it could
    released.set()
    slow.join(30)
    fast.join(30)
    assert read_manifest(local_path(URL)) == read_manifest(open_location(URL))


def test_foreign_folders_and_other_models_are_refused(downloaded: list[str]) -> None:
    system, root = fsspec.core.url_to_fs("memory://bucket/photos")
    system.pipe_file(f"{root}/photo.jpg", b"")
    with pytest.raises(ValueError, match=r"memory://bucket/photos is not an index, but contains 'photo\.jpg'"):
        encode_corpus(ToyEncoder(), toy_dataset(), "memory://bucket/photos")
    with pytest.raises(FileNotFoundError, match="memory://bucket/nothing is not an index"):
        load_corpus("memory://bucket/nothing")
    encode_shards(ToyEncoder(), toy_dataset(), URL)
    other = ToyEncoder()
    other.fingerprint = "another"
    with pytest.raises(ValueError, match=f"{URL} was encoded by another model"):
        load_corpus(URL, other)
    assert downloaded == []


def test_the_kind_of_an_index_is_recorded_at_the_url() -> None:
    encode_shards(ToyEncoder(), toy_dataset(), URL)
    sync_index(URL, "scan")
    assert DESCRIPTION in remote_content(URL)
    assert type(open_index(URL)) is ScanIndex
    sync_index(URL, "faiss")
    index = open_index(URL)
    assert type(index).__name__ == "FaissIndex"
    assert (local_path(URL) / "faiss-hnsw.index").exists()


def test_errors_of_a_file_system_name_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nowhere://x: Protocol not known: nowhere"):
        load_corpus("nowhere://x")

    class NoCredentialsError(Exception):
        pass

    def refused(*_: Any, **__: Any) -> Any:
        raise NoCredentialsError("unable to locate credentials")

    system, _ = fsspec.core.url_to_fs(URL)
    monkeypatch.setattr(system, "info", refused)
    with pytest.raises(OSError, match=rf"{URL}/manifest\.json: unable to locate credentials"):
        load_corpus(URL)
