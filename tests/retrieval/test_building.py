"""Index folders: shards, resuming, several processes, growth, damage."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ciea_hf.data import RetrievalDataset
from ciea_hf.retrieval import (
    DocumentView,
    EncodedCorpus,
    EncodingOptions,
    Retriever,
    building,
    encode_corpus,
    encode_shards,
    load_corpus,
    verify_corpus,
)
from ciea_hf.retrieval.building import launched_as
from ciea_hf.retrieval.checksums import read_checked, write_checked
from ciea_hf.retrieval.manifests import MANIFEST, read_manifest
from ciea_hf.retrieval.shards import SHARDS
from tests.support.processes import start
from tests.support.toy_retrieval import ToyEncoder, folder_content, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("options", [EncodingOptions(batch_size=1, shard_size=2), EncodingOptions(num_workers=0)])
def test_shards_and_batches_change_nothing(tmp_path: Path, options: EncodingOptions) -> None:
    dataset, model = toy_dataset(), ToyEncoder()
    memory = encode_corpus(model, dataset)
    kept = encode_corpus(model, dataset, tmp_path / "index", options=options, source={"path": "somewhere"})
    np.testing.assert_array_equal(kept.matrix(), memory.matrix())
    assert isinstance(kept.segments[0].vectors.rows, np.memmap)
    assert kept.ids == memory.ids == dataset.corpus_ids
    assert kept.source == {"name": "toy", "split": "test", "path": "somewhere"}


def test_encoding_continues_where_it_stopped(tmp_path: Path) -> None:
    class Failing(ToyEncoder):
        def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
            if self.documents_seen >= 2:
                raise RuntimeError("out of memory")
            return super().encode_document(inputs, **kwargs)

    dataset, options = toy_dataset(), EncodingOptions(shard_size=2)
    encode_corpus(ToyEncoder(), dataset, tmp_path / "whole", options=options)
    with pytest.raises(RuntimeError, match="out of memory"):
        encode_corpus(Failing(), dataset, tmp_path / "parts", options=options)
    with pytest.raises(ValueError, match=r"2 of 3 shards are missing; repeat `ciea index`"):
        load_corpus(tmp_path / "parts")
    model = ToyEncoder()
    encode_corpus(model, dataset, tmp_path / "parts", options=options)
    assert model.documents_seen == 4
    assert folder_content(tmp_path / "parts") == folder_content(tmp_path / "whole")


def killed_encoder(folder: Path, documents: int) -> None:
    """Encode until some documents have been seen, and die by SIGKILL in the middle of a shard."""

    class Dying(ToyEncoder):
        def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
            if self.documents_seen >= documents:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode_document(inputs, **kwargs)

    encode_corpus(Dying(), toy_dataset(), folder, options=EncodingOptions(shard_size=2, batch_size=1))


@pytest.mark.parametrize("documents", [0, 2, 4])
def test_a_killed_run_leaves_an_identical_index(tmp_path: Path, documents: int) -> None:
    options = EncodingOptions(shard_size=2, batch_size=1)
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "whole", options=options)
    process = start(killed_encoder, tmp_path / "killed", documents)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "killed", options=options)
    assert folder_content(tmp_path / "killed") == folder_content(tmp_path / "whole")


def test_explicit_shares_fill_one_folder(tmp_path: Path) -> None:
    dataset, options = toy_dataset(), EncodingOptions(shard_size=1)
    first, second = ToyEncoder(), ToyEncoder()
    assert encode_shards(first, dataset, tmp_path, options=options, shard=(0, 2)) == 3
    assert encode_shards(second, dataset, tmp_path, options=options, shard=(1, 2)) == 0
    assert (first.documents_seen, second.documents_seen) == (3, 3)
    np.testing.assert_array_equal(load_corpus(tmp_path).matrix(), encode_corpus(ToyEncoder(), dataset).matrix())
    with pytest.raises(ValueError, match="`shard` must be"):
        encode_shards(first, dataset, tmp_path, shard=(2, 2))


def encode_as(rank: int, world: int, folder: Path, dies: bool) -> None:
    """Encode as one of several processes, as a launcher starts them; the others wait for the one that dies."""
    dying = folder.parent / "dying"

    class Waiting(ToyEncoder):
        def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
            if dies:
                dying.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while not dying.exists():
                time.sleep(0.05)
            return super().encode_document(inputs, **kwargs)

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    building.POLL = 0.05
    encode_corpus(Waiting(), toy_dataset(), folder, options=EncodingOptions(shard_size=1))


def test_the_shards_of_a_dead_process_are_taken_by_others(tmp_path: Path) -> None:
    processes = [start(encode_as, rank, 3, tmp_path / "shared", rank == 1) for rank in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL, 0]
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "alone", options=EncodingOptions(shard_size=1))
    assert folder_content(tmp_path / "shared") == folder_content(tmp_path / "alone")


def test_launchers_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert launched_as() == (0, 1)
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert launched_as() == (5, 8)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched_as() == (1, 2)


def test_other_queries_leave_the_embeddings_valid(tmp_path: Path) -> None:
    whole = toy_dataset()
    encode_corpus(ToyEncoder(), whole, tmp_path)
    model, dev = ToyEncoder(), RetrievalDataset(whole.corpus, whole.queries, {"q-txt": {"txt-sea": 1}}, "toy", "dev")
    encode_corpus(model, dev, tmp_path)
    assert model.documents_seen == 0


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path)
    other = ToyEncoder()
    other.fingerprint = "another"
    for call in (lambda: encode_corpus(other, toy_dataset(), tmp_path), lambda: load_corpus(tmp_path, other)):
        with pytest.raises(ValueError, match="another model"):
            call()
    view, options = DocumentView(toy_dataset(), "caption"), EncodingOptions(precision="float16", truncate_dim=8)
    with pytest.raises(ValueError, match="another corpus, precision, truncate_dim"):
        encode_corpus(ToyEncoder(), toy_dataset(), tmp_path, view, options)
    with pytest.raises(FileNotFoundError, match="is not an index"):
        load_corpus(tmp_path / "nowhere")


def test_manifests_that_are_damaged_are_refused(tmp_path: Path) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path)
    sound = read_checked(tmp_path / MANIFEST)
    entry = sound["shards"][0]
    damaged: list[Any] = [
        [], {}, {**sound, "format": 1}, {**sound, "shard_size": 0}, {**sound, "precision": "int4"},
        {**sound, "shards": 7},
        {**sound, "shards": [{**entry, "documents": "6"}]}, {**sound, "shards": [{**entry, "deleted": [6]}]},
        {**sound, "shards": [{**entry, "name": "../../etc/passwd"}]}, {**sound, "shards": [{**entry, "files": {}}]},
    ]  # fmt: skip
    for manifest in damaged:
        if isinstance(manifest, dict):
            write_checked(tmp_path / MANIFEST, manifest)
        else:
            (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match="unexpected format"):
            load_corpus(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({**sound, "corpus": "another", "checksum": "0"}))
    with pytest.raises(ValueError, match=r"manifest\.json differs from its checksum"):
        load_corpus(tmp_path)
    write_checked(tmp_path / MANIFEST, {**sound, "shards": [{**entry, "documents": 10**12}]})
    with pytest.raises(ValueError, match="is inconsistent: 1000000000000 documents"):
        load_corpus(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".arrow", ".codes.npy", ".scales.npy"])
def test_a_flipped_bit_is_found(tmp_path: Path, suffix: str) -> None:
    options = EncodingOptions(shard_size=4, precision="int8")
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path, options=options)
    assert verify_corpus(tmp_path) == []
    before = folder_content(tmp_path)
    path = next(path for path in sorted((tmp_path / SHARDS).iterdir()) if path.name.split(".", 1)[1] == suffix[1:])
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    (line,) = verify_corpus(tmp_path)
    assert line == f"{path} differs from its checksum"
    with pytest.raises(ValueError, match=r"differs from its checksum; run `ciea index --verify`"):
        load_corpus(tmp_path)
    path.unlink()
    assert verify_corpus(tmp_path) == [f"{path} is missing"]
    model = ToyEncoder()
    encode_corpus(model, toy_dataset(), tmp_path, options=options)
    assert model.documents_seen == 4
    assert folder_content(tmp_path) == before


@pytest.mark.parametrize("suffix", [".npy", ".arrow"])
def test_truncated_shards_are_named(tmp_path: Path, suffix: str) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path)
    (path,) = (p for p in (tmp_path / SHARDS).iterdir() if p.name.endswith(suffix) and ".codes" not in p.name)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{path.name} differs from its checksum; run `ciea index --verify`"):
        load_corpus(tmp_path)


def test_metadata_are_stored(tmp_path: Path) -> None:
    whole = toy_dataset()
    corpus = whole.corpus.add_column("year", [2001, None, 2003, 2004, 2005, 2006])
    corpus = corpus.add_column("metadata", ['{"site": "wiki"}', None, "{}", None, '{"site": "news", "year": 1}', None])
    dataset = RetrievalDataset(corpus, whole.queries, {}, name="toy", split="test")
    assert dataset.corpus_fingerprint != whole.corpus_fingerprint
    encode_corpus(ToyEncoder(), dataset, tmp_path, options=EncodingOptions(shard_size=4))
    retriever = Retriever.from_corpus(ToyEncoder(), load_corpus(tmp_path))
    hits = {hit.id: hit.metadata for hit in retriever.search("red cup", 6)[0]}
    assert hits["img-red"] == {"year": 2001, "site": "wiki"}
    assert hits["img-green"] == {}
    assert hits["txt-tea"] == {"year": 2005, "site": "news"}
    found = retriever.search("red cup", 6, filter={"modality": "image", "year": {"$gte": 2003}})[0]
    assert {hit.id for hit in found} == {"img-blue", "img-bare"}


@pytest.mark.parametrize("precision", ["float16", "int8", "binary"])
def test_truncated_embeddings_of_each_precision(tmp_path: Path, precision: str) -> None:
    options = EncodingOptions(precision=precision, truncate_dim=48)
    kept = encode_corpus(ToyEncoder(), toy_dataset(), tmp_path, options=options)
    assert kept.dimension == 48
    rows = encode_corpus(ToyEncoder(), toy_dataset()).matrix()[:, :48]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    closeness = (rows * kept.matrix()).sum(axis=1)
    assert closeness.min() > (0.7 if precision == "binary" else 0.999)
    assert Retriever.from_corpus(ToyEncoder(), kept).search("tea drink", 1)[0][0].id == "txt-tea"
    with pytest.raises(ValueError, match="`truncate_dim` must be at most 64"):
        encode_corpus(ToyEncoder(), toy_dataset(), options=EncodingOptions(truncate_dim=65))


def test_saving_over_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path)
    with pytest.raises(ValueError, match="an index of another model"):
        EncodedCorpus.from_embeddings(np.eye(2), ["a", "b"]).save(tmp_path)
    assert read_manifest(tmp_path)["model"] == "toy"
