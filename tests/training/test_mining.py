"""Mining: what is chosen, what is dropped and counted, how it is written, read and drawn from."""

from __future__ import annotations

import dataclasses
import json
import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ciea_hf.cli import main as ciea
from ciea_hf.data.dataset import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.retrieval import DocumentView, EncodingOptions
from ciea_hf.training.config import STAGES
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.mining import mine_negatives
from ciea_hf.training.data.negatives import MiningOptions, choose_negatives, load_negatives, save_negatives
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.encoder import TrainingEncoder
from tests.support.helpers import tiny_model
from tests.support.processes import start
from tests.support.toy_training import save_training_data, training_data

if TYPE_CHECKING:
    from pathlib import Path

DROPPED = ("dropped: outside the window", "dropped: score too high", "dropped: beyond the quota")


def ranked_data() -> RetrievalDataset:
    """Ten documents, even ones with an image; two queries, the first with two positives."""
    image = {"bytes": b"never decoded", "path": None}
    ids = [f"d{i}" for i in range(10)]
    corpus = corpus_from_columns(ids, [f"text {i}" for i in range(10)], [None if i % 2 else image for i in range(10)])
    qrels = {"q0": {"d0": 1, "d3": 2, "d5": 0}, "q1": {"d9": 1}}
    return RetrievalDataset(corpus, queries_from_columns(["q0", "q1"], ["one", "two"]), qrels, "ranked", "train")


RANKING = [(f"d{i}", 1.0 - i / 10) for i in range(10)]  # d0 1.0, d1 0.9, ..., d9 0.1


def choose(**options: Any) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Negatives of the first query and the report."""
    data = ranked_data()
    positives = {"q0": 1.0}
    found = choose_negatives([("q0", RANKING)], data, MiningOptions(**options), positives)
    report = found.report
    assert report["candidates"] == report["kept"] + sum(report[reason] for reason in DROPPED)
    assert report["kept"] == sum(map(len, found.by_query["q0"].values()))
    return found.by_query["q0"], report


def test_every_positive_is_removed_and_quotas_hold_by_kind() -> None:
    found, report = choose(images=9, texts=9)
    assert sorted(found["image"]) == ["d2", "d4", "d6", "d8"]  # not d0
    assert sorted(found["text"]) == ["d1", "d5", "d7", "d9"]  # not d3; d5 is judged, and not relevant
    assert (report["relevant"], report["candidates"], report["kept"]) == (2, 8, 8)
    assert (report["queries short of images"], report["queries short of texts"]) == (1, 1)
    found, report = choose(images=1, texts=2)
    assert (len(found["image"]), len(found["text"])) == (1, 2)
    assert report["dropped: beyond the quota"] == 5
    assert report["queries short of images"] == 0


def test_ranks_count_without_the_positives_and_the_window_bounds_them() -> None:
    found, report = choose(images=9, texts=9, window=(2, 4))
    assert found == {"image": ["d4"], "text": ["d5"]}
    assert report["dropped: outside the window"] == 6
    found, _ = choose(images=9, texts=9, depth=3)
    assert found == {"image": ["d2", "d4"], "text": ["d1"]}


def test_margin_and_highest_score_drop_false_negatives() -> None:
    found, report = choose(images=9, texts=9, relative_margin=0.45)  # above 0.55: d1, d2 and d4
    assert found == {"image": ["d6", "d8"], "text": ["d5", "d7", "d9"]}
    assert report["dropped: score too high"] == 3
    found, report = choose(images=9, texts=9, max_score=0.35)
    assert found == {"image": ["d8"], "text": ["d7", "d9"]}
    assert report["dropped: score too high"] == 5
    found, _ = choose(images=9, texts=9, relative_margin=0.0)
    assert "d1" in found["text"]


def test_a_draw_within_the_window_is_random_by_seed_and_in_order() -> None:
    draws = [choose(images=2, texts=0, seed=seed)[0]["image"] for seed in range(12)]
    assert len({tuple(draw) for draw in draws}) > 2
    assert all(draw == sorted(draw) for draw in draws)
    assert choose(images=2, texts=0, seed=3)[0]["image"] == draws[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (5, 5)}, "`window` must be two ranks"),
        ({"window": (-1, 5)}, "`window` must be two ranks"),
        ({"depth": 0}, "`depth` must be at least 1; got 0"),
        ({"images": -1}, "`images` must be at least 0; got -1"),
    ],
)
def test_options_are_checked(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiningOptions(**options)


def test_negatives_are_written_and_read_by_rank(tmp_path: Path) -> None:
    data = ranked_data()
    found = choose_negatives([("q1", RANKING), ("q0", RANKING)], data, MiningOptions(images=2, texts=1))
    path = save_negatives(found, tmp_path)
    read = load_negatives(tmp_path, data.document_kinds)
    assert path.name == "negatives.parquet"
    assert read == load_negatives(path, data.document_kinds)
    for query, kinds in found.by_query.items():
        for kind, documents in kinds.items():
            assert [data.corpus_ids[row] for row in read[query][kind]] == documents
    with pytest.raises(ValueError, match="is not in the corpus"):
        load_negatives(tmp_path, {"d0": "image"})
    with pytest.raises(FileNotFoundError, match="run stage `mine` first, or set `negatives`"):
        load_negatives(tmp_path / "none", data.document_kinds)


def test_mining_ranks_the_corpus_as_a_naive_search_does(tmp_path: Path) -> None:
    model, data = tiny_model(), training_data()
    options = MiningOptions(depth=12, images=30, texts=30)
    encoder = TrainingEncoder(model, Embedder(model).eval(), Collator(model.processor))
    found = mine_negatives(encoder, data, options, folder=tmp_path / "shards")
    plain = mine_negatives(model, data, options)
    documents = torch.tensor(model.encode_document([_input(row) for row in data.corpus], normalize_embeddings=True))
    for row in data.queries:
        query = torch.tensor(model.encode_query(row["text"], normalize_embeddings=True))
        relevant = {name for name, score in data.qrels[row["id"]].items() if score > 0}
        order = [data.corpus_ids[i] for i in (documents @ query).argsort(descending=True).tolist()]
        expected = set([name for name in order if name not in relevant][:12])
        for mined in (found, plain):
            names = [name for kind in ("image", "text") for name in mined.by_query[row["id"]][kind]]
            assert len(names) == 12
            assert len(set(names) & expected) >= 11  # two scores may be equal but for rounding
            assert not set(names) & relevant


def _input(row: Any) -> Any:
    return {"text": row["text"], "image": row["image"]}


@pytest.mark.parametrize("relative_margin", [0.0, 0.1])
def test_the_margin_is_measured_from_the_best_positive(tmp_path: Path, relative_margin: float) -> None:
    """Several shards, so that the positive's row must be looked up in the right one."""
    model, data = tiny_model(), training_data()
    options = MiningOptions(depth=40, images=40, texts=40, relative_margin=relative_margin)
    found = mine_negatives(model, data, options, encoding=EncodingOptions(shard_size=7), folder=tmp_path)
    assert len(list(tmp_path.glob("shards/*.json"))) == 5
    inputs = [_input(row) for row in data.corpus]
    documents = torch.tensor(model.encode_document(inputs, normalize_embeddings=True))
    rows = {name: row for row, name in enumerate(data.corpus_ids)}
    for row in data.queries:
        scores = documents @ torch.tensor(model.encode_query(row["text"], normalize_embeddings=True))
        best = max(scores[rows[name]].item() for name in data.qrels[row["id"]])
        mined = [scores[rows[name]].item() for names in found.by_query[row["id"]].values() for name in names]
        assert all(score <= best - abs(best) * relative_margin + 1e-5 for score in mined)
    assert found.report["dropped: score too high"] > 0
    assert found.report["kept"] > 0


def test_interrupted_mining_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, encoding = tiny_model(), training_data(), EncodingOptions(shard_size=8)
    first = mine_negatives(model, data, MiningOptions(), encoding=encoding, folder=tmp_path)
    assert len(list(tmp_path.glob("shards/*.json"))) == 4
    next(tmp_path.glob("shards/00002-*.npy")).unlink()
    monkeypatch.setattr(type(model), "encode_document", counting := Counting(type(model).encode_document))
    second = mine_negatives(model, data, MiningOptions(), encoding=encoding, folder=tmp_path)
    assert counting.inputs == 8
    assert second == first


class Counting:
    """Counts the inputs of a method."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.inputs = 0

    def __get__(self, instance: Any, owner: Any) -> Any:
        def call(inputs: Any, **kwargs: Any) -> Any:
            self.inputs += len(inputs)
            return self.method(instance, inputs, **kwargs)

        return call


def test_broken_images_do_not_stop_mining(tmp_path: Path) -> None:
    data = training_data(broken=2)
    model = tiny_model()
    encoder = TrainingEncoder(model, Embedder(model).eval(), Collator(model.processor))
    skipping, failing = (DocumentView(data, on_broken_image=policy) for policy in ("skip", "fail"))
    found = mine_negatives(encoder, data, MiningOptions(images=40), folder=tmp_path / "skip", view=skipping)
    assert found.report["kept"] > 0
    with pytest.raises(ValueError, match="document 'img-0'"):
        mine_negatives(encoder, data, MiningOptions(), folder=tmp_path / "fail", view=failing)


def test_the_command_mines_what_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    save_training_data(tmp_path / "data", broken=1)
    tiny_model().save_pretrained(tmp_path / "model")
    output = tmp_path / "mined"
    assert "mine" in STAGES
    status = ciea(
        ["mine", str(tmp_path / "model"), str(tmp_path / "data"), "--output", str(output),
         "--negatives-per-kind", "3", "2", "--on-broken-image", "skip",
         "--relative-margin", "0.05", "--window", "1", "40"]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert status == 0
    report = json.loads((output / "negatives.json").read_text())["report"]
    assert f"{report['kept']:10d}  kept" in shown
    read = load_negatives(output, training_data().document_kinds)
    assert sum(len(rows) for kinds in read.values() for rows in kinds.values()) == report["kept"] > 0
    assert max(len(kinds.get("image", [])) for kinds in read.values()) == 3
    mine = ["mine", str(tmp_path / "model"), str(tmp_path / "data"), "--output", str(output)]
    assert ciea(mine) == 2
    assert "document 'img-0'" in capsys.readouterr().err
    assert ciea(["mine", "m", "d", "--output", str(output), "--window", "5", "2"]) == 2
    assert "`window` must be two ranks" in capsys.readouterr().err


# --- at scale


class Synthetic:
    """Embeds by number, without a model: the vectors of a document are those of its id."""

    fingerprint = "synthetic"
    width = 32

    def encode_query(self, inputs: Any, **_: Any) -> torch.Tensor:
        return self._rows([int(text) for text in inputs], 1)

    def encode_document(self, inputs: Any, **_: Any) -> torch.Tensor:
        return self._rows([int(text) for text in inputs], 2)

    def _rows(self, numbers: list[int], salt: int) -> torch.Tensor:
        generator = np.random.default_rng((salt, numbers[0], len(numbers)))
        return torch.nn.functional.normalize(torch.tensor(generator.normal(size=(len(numbers), self.width))), dim=1)


def _mine_at_scale(folder: Path, documents: int, queries: int) -> None:
    """Write how much memory mining takes beside the data, and its report."""
    torch.set_num_threads(1)
    names = [str(i) for i in range(documents)]
    corpus = corpus_from_columns(names, names, [None] * documents)
    asked = [str(i) for i in range(queries)]
    qrels = {name: {name: 1} for name in asked}
    data = RetrievalDataset(corpus, queries_from_columns(asked, asked), qrels, "synthetic", "train")
    from ciea_hf.retrieval.encoding import EncodingOptions

    encoding = EncodingOptions(batch_size=4096, precision="float16")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = mine_negatives(Synthetic(), data, MiningOptions(images=0, texts=5), encoding=encoding, folder=folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    (folder / "figures.json").write_text(json.dumps({"grown_mb": grown, "report": found.report}))


def test_a_large_corpus_is_mined_in_bounded_memory(tmp_path: Path) -> None:
    """200,000 documents for 2,000 queries: all scores at once would take 1.6 GB."""
    process = start(_mine_at_scale, tmp_path, 200_000, 2_000)
    process.join(100)
    assert process.exitcode == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["report"]["kept"] == 2_000 * 5
    assert figures["report"]["candidates"] == 2_000 * 100
    assert figures["grown_mb"] < 800
    assert dataclasses.asdict(MiningOptions())["depth"] == 100
