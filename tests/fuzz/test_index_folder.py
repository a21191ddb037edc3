"""Damaged files of an index folder: an error that names the folder, or the hits of the sound one; never others."""

from __future__ import annotations

import json
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.retrieval import Retriever, encode_corpus, load_corpus, verify_corpus
from ciea_hf.retrieval.bm25 import KeywordIndex
from ciea_hf.retrieval.encoding import EncodingOptions
from ciea_hf.retrieval.indexes.syncing import open_index, sync_index
from tests.fuzz.outcomes import Tally, cases, mutated_bytes, mutated_json, outcome
from tests.support.toy_retrieval import ToyEncoder, toy_dataset

if TYPE_CHECKING:
    import random
    from pathlib import Path

QUERIES = ["red cup", "tea drink", "blue boat sea", "grey"]


def make_index(folder: Path, kind: str, precision: str) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), folder, options=EncodingOptions(precision=precision, shard_size=4))
    sync_index(folder, kind)
    KeywordIndex(load_corpus(folder), folder)


def hits(folder: Path) -> list[Any]:
    """Hits of dense and hybrid searches, and with a filter."""
    model = ToyEncoder()
    index = open_index(folder, model)
    found = []
    for keywords in (None, KeywordIndex(load_corpus(folder, model), folder)):
        retriever = Retriever(model, index, keywords)
        for condition in (None, {"modality": "text"}):
            rows = retriever.search(QUERIES, 4, filter=condition)
            found += [[(hit.id, hit.kind, hit.text, round(hit.score, 5)) for hit in row] for row in rows]
    return found


def damage(folder: Path, numbers: random.Random) -> str:
    """Change a file of an index, or remove it; return what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    path = numbers.choice(files)
    name = path.relative_to(folder).as_posix()
    kind = numbers.random()
    if kind < 0.1:
        path.unlink()
        return f"{name} removed"
    if kind < 0.15:
        other = numbers.choice(files)
        shutil.copyfile(other, folder / "other")
        (folder / "other").replace(path)
        return f"{name} replaced by {other.name}"
    if path.suffix == ".json" and kind < 0.7:
        content = mutated_json(json.loads(path.read_text()), numbers)
        path.write_text(json.dumps(content))
        return f"{name}: {json.dumps(content)[:300]}"
    path.write_bytes(mutated_bytes(path.read_bytes(), numbers))
    return f"{name}: bytes changed"


@pytest.mark.parametrize(("kind", "precision"), [("flat", "float32"), ("scan", "int8"), ("faiss", "float32")])
def test_damaged_indexes_are_refused_or_searched_as_before(tmp_path: Path, kind: str, precision: str) -> None:
    make_index(tmp_path / "sound", kind, precision)
    expected = hits(tmp_path / "sound")
    tally = Tally()
    for seed, numbers in cases(20):
        folder = tmp_path / f"case-{seed}"
        shutil.copytree(tmp_path / "sound", folder)
        done = damage(folder, numbers)
        found, detail = outcome(partial(hits, folder))
        if found == "clear" and str(folder) not in detail:
            found, detail = "unclear", f"the folder is not named: {detail}"
        if found == "accepted" and detail != expected:
            found, detail = "unclear", "other hits, silently"
        if found == "accepted":
            checked, message = outcome(partial(verify_corpus, folder))
            if checked == "unclear" or (checked == "clear" and str(folder) not in message):
                found, detail = "unclear", f"verify: {message}"
        tally.add(found, f"seed {seed}: {done}: {detail}")
        shutil.rmtree(folder)
    tally.check()
