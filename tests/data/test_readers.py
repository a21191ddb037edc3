"""Every format of the field, read from a sample of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.data import column_values, load_retrieval_dataset, save_retrieval_dataset
from ciea_hf.data.images import image_source
from ciea_hf.data.loading import open_reader
from tests.support import sample_datasets
from tests.support.sample_datasets import CAPTIONS, COLOURS, POSITIVES, QUESTIONS, SAMPLES, TEXTS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def plain(name: str) -> str:
    return name.rpartition(":")[2]  # M-BEIR's ids begin with the number of their data set


def expected(form: str, split: str) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Documents, queries and judgements of a sample."""
    documents, queries, qrels = TEXTS | CAPTIONS, dict(QUESTIONS[split]), sample_datasets.qrels_of(split)
    if form == "edis":
        queries = {query: text for query, text in queries.items() if sample_datasets.is_image(POSITIVES[query][0])}
        documents = dict(CAPTIONS)
        qrels = {query: {name: int(name in POSITIVES[query]) for name in CAPTIONS} for query in queries}
    if form == "clueweb22-mm":
        qrels = sample_datasets.qrels_of(split, negatives=False)
    if form == "webqa-original" and split == "dev":
        qrels["q3"] |= dict.fromkeys([name for name in CAPTIONS if name != "30000002"], 0) | {"d6aa1": 0}
    return documents, queries, qrels


@pytest.mark.parametrize("form", SAMPLES)
def test_a_sample_is_recognised_and_read(tmp_path: Path, form: str) -> None:
    folder = SAMPLES[form](tmp_path / "data")
    splits = ["train", "dev"] if form == "webqa-original" else ["train", "dev", "test"]
    assert open_reader(folder).splits == splits
    for split in splits:
        data = load_retrieval_dataset(folder, split)
        documents, queries, qrels = expected(form, split)
        found = dict(zip(map(plain, data.corpus_ids), column_values(data.corpus, "text"), strict=True))
        assert found == documents
        assert {plain(name): kind for name, kind in data.document_kinds.items()} == {
            name: "image" if name in CAPTIONS else "text" for name in documents
        }
        names = map(plain, column_values(data.queries, "id"))
        assert dict(zip(names, column_values(data.queries, "text"), strict=True)) == queries
        assert {plain(q): {plain(d): s for d, s in row.items()} for q, row in data.qrels.items()} == qrels


@pytest.mark.parametrize("form", SAMPLES)
def test_images_are_decoded_one_by_one(tmp_path: Path, form: str) -> None:
    data = load_retrieval_dataset(SAMPLES[form](tmp_path / "data"), "train")
    rows = {plain(name): row for row, name in enumerate(data.corpus_ids)}
    for name, colour in COLOURS.items():
        if name != "30000007":  # the truncated one
            assert data.corpus[rows[name]]["image"].getpixel((3, 3)) == colour
    with pytest.raises(Exception, match="truncated"):
        data.corpus[rows["30000007"]]
    if "d5bc8" in rows:
        assert data.corpus[rows["d5bc8"]]["image"] is None
    encoded = data.corpus.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    source = image_source(encoded[rows["30000001"]]["image"])
    content = source if isinstance(source, bytes) else open(source, "rb").read()  # noqa: SIM115, PTH123
    assert content == sample_datasets.png(COLOURS["30000001"])


@pytest.mark.parametrize("form", SAMPLES)
def test_our_own_format_reads_the_same(tmp_path: Path, form: str) -> None:
    data = load_retrieval_dataset(SAMPLES[form](tmp_path / "data"), "train")
    save_retrieval_dataset({"train": data}, tmp_path / "own", "# Specimen")
    own = load_retrieval_dataset(tmp_path / "own", "train")
    assert own.corpus_ids == data.corpus_ids
    assert own.qrels == data.qrels
    assert [
        own.corpus[row]["image"].getpixel((3, 3))
        for row, name in enumerate(own.corpus_ids)
        if plain(name) == "30000002"
    ]
    assert {
        plain(n): own.corpus[r]["image"].getpixel((0, 0))
        for r, n in enumerate(own.corpus_ids)
        if plain(n) in list(COLOURS)[:5]
    } == {name: COLOURS[name] for name in list(COLOURS)[:5]}


def test_splits_share_their_corpus_while_it_lives(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    train, dev = (load_retrieval_dataset(folder, split) for split in ("train", "dev"))
    assert train.corpus is dev.corpus
    with (folder / "all_docs.json").open("a") as file:
        file.write(json.dumps({"snippet_id": "new", "fact": "news"}) + "\n")
    assert len(load_retrieval_dataset(folder, "test").corpus) == len(train.corpus) + 1


@pytest.mark.parametrize("form", ["webqa", "webqa-original"])
def test_webqa_image_leaves_texts_out(tmp_path: Path, form: str) -> None:
    folder = SAMPLES[form](tmp_path / "data")
    data = load_retrieval_dataset(folder, "train", format=f"{form}-image")
    assert sorted(data.corpus_ids) == sorted(CAPTIONS)
    assert data.qrels == {"q1": {"30000000": 1, "30000001": 0}}
    assert column_values(data.queries, "id") == ["q1"]
    if form == "webqa":
        assert load_retrieval_dataset(folder, "test", format="webqa-image").qrels == {
            "q4": dict.fromkeys(POSITIVES["q4"], 1)
        }


def test_mined_negatives_are_read_too(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    row = sample_datasets.webqa_row("q1", "which square is red") | {"all_negFacts": ["30000003", "30000000", "d6aa1"]}
    sample_datasets.write_lines(folder / "train.json", [row])
    found = load_retrieval_dataset(folder, "train").qrels["q1"]
    assert found == {"30000000": 1, "30000001": 0, "d70ff": 0, "30000003": 0, "d6aa1": 0}


def test_a_query_without_positives_is_not_judged(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    row = sample_datasets.webqa_row("none", "which one") | {"img_negFacts": ["30000001"]}
    sample_datasets.write_lines(folder / "train.json", [sample_datasets.webqa_row("q1", "which square is red"), row])
    data = load_retrieval_dataset(folder, "train")
    assert (column_values(data.queries, "id"), list(data.qrels)) == (["q1", "none"], ["q1"])


def test_judgement_files_take_precedence_over_queries(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    (folder / "dev_qrels.txt").write_text("q3\t30000001\t2\n")
    assert load_retrieval_dataset(folder, "dev").qrels == {"q3": {"30000001": 2}}


def test_edis_without_all_candidates_takes_those_of_the_queries(tmp_path: Path) -> None:
    folder = sample_datasets.edis(tmp_path / "data", all_candidates=False)
    data = load_retrieval_dataset(folder, "test")
    assert data.corpus_ids == list(CAPTIONS)
    assert data.corpus[0]["image"].getpixel((0, 0)) == COLOURS["30000000"]


def test_mbeir_requires_a_task(tmp_path: Path) -> None:
    folder = sample_datasets.mbeir(sample_datasets.mbeir(tmp_path / "data"), "mbeir_webqa_task1")
    with pytest.raises(ValueError, match="several tasks"):
        load_retrieval_dataset(folder)
    pool = folder / "cand_pool" / "local" / "mbeir_webqa_task1_cand_pool.jsonl"
    data = load_retrieval_dataset(pool, "test")
    assert data.name == "mbeir_webqa_task1"
    assert data.qrels["2:q5"] == {"2:d6aa1": 1}
    assert data.corpus[len(TEXTS)]["image"].getpixel((0, 0)) == COLOURS["30000000"]
    (folder / "qrels" / "test" / "mbeir_webqa_task1_test_qrels.txt").unlink()
    assert load_retrieval_dataset(pool, "test").qrels == data.qrels


def test_numbers_that_pandas_made_floats_are_ids(tmp_path: Path) -> None:
    folder = sample_datasets.clueweb(tmp_path / "data")
    pq.write_table(pa.table({"text_id": [7, 8], "surround": ["seven", "eight"]}), folder / "text.parquet")
    row = {"qid": ["a", "b"], "query": ["?", "!"], "text_id": [7.0, float("nan")], "img_id": [None, "30000001"]}
    pq.write_table(pa.table(row), folder / "train.parquet")
    assert load_retrieval_dataset(folder, "train").qrels == {"a": {"7": 1}, "b": {"30000001": 1}}


def broken(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train.json", '"qid": "q2"', '"qid": "q2', r"train\.json:\d+: invalid JSON"),
        ("train.json", '"qid": "q2"', '"id": "q2"', r"train\.json:\d+: 'qid' must be"),
        ("train.json", '["30000000"]', '["30000000", "gone"]', r"train\.json:1: 'q1': the query judges 'gone' \(1\)"),
        ("train.json", '["30000000"]', '"30000000"', r"train\.json:1: 'img_posFacts' must be a list of ids"),
        ("train.json", '"q2"', '"q1"', r"train\.json:\d+: 'q1': the query already exists \(line 1\)"),
        ("dev_qrels.txt", "30000002", "30000099", r"dev_qrels\.txt:1: 'q3': the query judges '30000099'"),
        ("dev_qrels.txt", "0 30000002 1", "30000002", r"dev_qrels\.txt:1: a judgement must have 3, 4 or 5 columns"),
        ("all_docs.json", '"d6aa1"', '"d5bc8"', r"all_docs\.json:2: 'd5bc8': the document already exists \(line 1\)"),
        ("all_imgs.json", '"30000003"', '"30000063"', r"all_imgs\.json:4: '30000063': the image is missing from imgs"),
        ("imgs.lineidx.new", "30000001\t", "30000001 ", r"imgs\.lineidx\.new:2: '30000001 \d+': a line must be an id"),
        ("imgs.lineidx.new", "30000001\t", "30000000\t", r"imgs\.lineidx\.new:2: '30000000': offset \d+ contradicts"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_and_id(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    broken(folder, file, old, new)
    with pytest.raises(ValueError, match=message):
        load_retrieval_dataset(folder, "dev" if file.startswith("dev") else "train")


@pytest.mark.parametrize("file", ["imgs.lineidx.new", "imgs.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        load_retrieval_dataset(folder, "train", format="webqa")


def test_rows_of_tables_are_named(tmp_path: Path) -> None:
    folder = sample_datasets.clueweb(tmp_path / "data")
    table = pq.read_table(folder / "test.parquet")
    pq.write_table(table.set_column(0, "qid", pa.array(["q4", None, "q5"])), folder / "test.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet, row 2: 'qid' must be a text or a number; got nothing"):
        load_retrieval_dataset(folder, "test")
    pq.write_table(table.drop_columns(["query"]), folder / "test.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet: no column \['query'\]"):
        load_retrieval_dataset(folder, "test")
    (folder / "test.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"test\.parquet is not a parquet file"):
        load_retrieval_dataset(folder, "test")
