"""Index folders that grow and shrink: appended, replaced and pruned documents, and readers at the same time."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest

from ciea_hf.retrieval import (
    EncodingOptions,
    Retriever,
    encode_corpus,
    encode_shards,
    load_corpus,
    prune,
    verify_corpus,
)
from tests.support.toy_retrieval import ToyEncoder, dataset_of, folder_content

if TYPE_CHECKING:
    from pathlib import Path


def test_append_encodes_what_is_new_or_changed(tmp_path: Path) -> None:
    options = EncodingOptions(shard_size=2)
    old = dataset_of({"a": "red", "b": "tea", "c": "sea"}, {"p": "red", "q": "blue"})
    new = dataset_of({"a": "red", "b": "green tea", "d": "boat"}, {"p": "green", "q": "blue"})
    encode_corpus(ToyEncoder(), old, tmp_path, options=options)
    with pytest.raises(ValueError, match=r"made with another corpus.*--append"):
        encode_corpus(ToyEncoder(), new, tmp_path, options=options)
    model = ToyEncoder()
    assert encode_shards(model, new, tmp_path, options=options, append=True) == 0
    assert model.documents_seen == 3  # b and p have changed, d is new
    corpus = load_corpus(tmp_path)
    assert sorted(corpus.ids) == ["a", "b", "c", "d", "p", "q"]
    assert prune(tmp_path, new) == 1
    assert verify_corpus(tmp_path) == []
    pruned, whole = load_corpus(tmp_path), encode_corpus(ToyEncoder(), new)
    assert sorted(pruned.ids) == sorted(whole.ids)
    assert len(pruned.live) == 5  # the replaced rows are gone
    for query in ("green tea", "blue", "boat", "sea"):
        found = [
            [(hit.id, hit.score, hit.text) for hit in Retriever.from_corpus(ToyEncoder(), one).search(query, 5)[0]]
            for one in (pruned, whole)
        ]
        assert found[0] == found[1]
    again = ToyEncoder()
    assert encode_shards(again, new, tmp_path, options=options, append=True) == 0
    assert again.documents_seen == 0


def test_an_interrupted_append_changes_nothing_until_it_ends(tmp_path: Path) -> None:
    options = EncodingOptions(shard_size=1)
    old, new = dataset_of({"a": "red", "b": "tea"}), dataset_of({"a": "blue", "b": "tea", "c": "sea"})
    for name in ("parts", "whole"):
        encode_corpus(ToyEncoder(), old, tmp_path / name, options=options)
    assert encode_shards(ToyEncoder(), new, tmp_path / "parts", options=options, append=True, shard=(0, 2)) == 1
    assert load_corpus(tmp_path / "parts").ids == ["a", "b"]
    for name in ("parts", "whole"):
        assert encode_shards(ToyEncoder(), new, tmp_path / name, options=options, append=True) == 0
    assert folder_content(tmp_path / "parts") == folder_content(tmp_path / "whole")
    assert sorted(load_corpus(tmp_path / "whole").ids) == ["a", "b", "c"]


def test_a_reader_sees_the_old_or_the_new_state(tmp_path: Path) -> None:
    """A thread opens the index again and again while documents are appended and pruned."""
    options = EncodingOptions(shard_size=2)
    states = [dataset_of({f"{n}-{generation}": f"word{n}" for n in range(5)}) for generation in range(6)]
    valid = {tuple(sorted(state.corpus_ids)) for state in states}
    valid |= {tuple(sorted(one.corpus_ids + two.corpus_ids)) for one, two in itertools.pairwise(states)}
    encode_corpus(ToyEncoder(), states[0], tmp_path, options=options)
    seen, stopped, errors = [], threading.Event(), []

    def read() -> None:
        while not stopped.is_set():
            try:
                seen.append(tuple(sorted(load_corpus(tmp_path).ids)))
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for state in states[1:]:
            encode_shards(ToyEncoder(), state, tmp_path, options=options, append=True)
            prune(tmp_path, state)
    finally:
        stopped.set()
        thread.join()
    assert not errors
    assert set(seen) <= valid
    assert len(set(seen)) > 1


def test_an_empty_corpus_is_an_empty_index(tmp_path: Path) -> None:
    dataset = dataset_of({})
    assert len(encode_corpus(ToyEncoder(), dataset, tmp_path)) == 0
    assert Retriever.from_corpus(ToyEncoder(), load_corpus(tmp_path)).search("tea", 3) == [[]]
    encode_shards(ToyEncoder(), dataset_of({"a": "tea"}), tmp_path, append=True)
    assert load_corpus(tmp_path).ids == ["a"]
