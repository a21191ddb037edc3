"""Files of hard negatives: what is refused, what is reported, and what a run says that it trains on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.cli import main as ciea
from ciea_hf.retrieval import DocumentView
from ciea_hf.training.data.examples import RetrievalExamples
from ciea_hf.training.data.mining import mine_negatives
from ciea_hf.training.data.negatives import MiningOptions, load_negatives
from ciea_hf.training.data.sampler import SampleKey
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.helpers import tiny_model
from tests.support.toy_training import arguments_of, configured, read_log, reset_engine, training_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")

ROWS: dict[str, list[Any]] = {
    "query-id": ["q-cat-red", "q-cat-red", "q-dog-red"],
    "corpus-id": ["img-7", "txt-1", "img-4"],
    "kind": ["image", "text", "image"],
    "rank": [0, 0, 0],
}
KINDS = training_data().document_kinds


def write(path: Path, **columns: Any) -> Path:
    """Write negatives; `columns` replace or, if `None`, remove columns, with underscores in place of dashes."""
    changed = {name.replace("_", "-"): values for name, values in columns.items()}
    content = {name: values for name, values in (ROWS | changed).items() if values is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), path)
    return path


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("train.py: error: ")
    assert len(error) < 700
    return error


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rank": None}, "missing: rank; found: query-id, corpus-id, kind"),
        ({"query_id": None, "kind": None}, "missing: query-id, kind; found: corpus-id, rank"),
        ({"kind": ["IMAGE", "text", "image"]}, "kind of document 'img-7' must be one of image, text; got 'IMAGE'"),
        ({"kind": ["image", "text", "img"]}, "kind of document 'img-4' must be one of image, text; got 'img'"),
        ({"kind": ["text", "text", "image"]}, "kind of document 'img-7' is 'image'; got 'text'"),
        ({"kind": ["image", None, "image"]}, "column 'kind' has 1 empty values"),
        ({"corpus_id": ["img-7", "txt-1", "gone"]}, "document 'gone' is not in the corpus"),
        ({"corpus_id": [1, 2, 3]}, "column 'corpus-id' must be of type string; got int64"),
        ({"query_id": [["a"], ["b"], ["c"]]}, "column 'query-id' must be of type string; got list"),
        ({"rank": ["0", "1", "2"]}, "column 'rank' must be of type integer; got string"),
        ({"rank": [0.0, 1.0, 2.0]}, "column 'rank' must be of type integer; got double"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path: Path, columns: Any, message: str) -> None:
    path = write(tmp_path / "negatives.parquet", **columns)
    with pytest.raises(ValueError, match=r"negatives\.parquet: ") as caught:
        load_negatives(path, KINDS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"", b"query-id\tcorpus-id\n", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "negatives.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"negatives\.parquet cannot be read as parquet: "):
        load_negatives(path, KINDS)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_the_string_types_of_the_writers_are_read(tmp_path: Path, kind: Any) -> None:
    path = write(tmp_path / "negatives.parquet", kind=pa.array(ROWS["kind"], pa.string()).cast(kind))
    assert load_negatives(path, KINDS) == {
        "q-cat-red": {"image": [7], "text": [26]},
        "q-dog-red": {"image": [4]},
    }


EMPTY: dict[str, list[Any]] = {name: [] for name in ROWS}


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (lambda p: write(p, query_id=["a", "b", "c"]), {}, "the negatives are of queries such as 'a'"),
        (lambda p: pq.write_table(pa.table({**{n: pa.array([], pa.string()) for n in ROWS},
                                            "rank": pa.array([], pa.int32())}), p), {}, "the negatives are empty"),
        (lambda p: write(p, **{n.replace("-", "_"): v[1:2] for n, v in ROWS.items()}),
         {"text_negatives": 0}, "(asked for: 1 image, 0 text per query)"),
        (lambda p: write(p, corpus_id=["img-0", "txt-5", "img-1"], query_id=["q-cat-red"] * 2 + ["q-dog-red"]), {},
         "has a hard negative"),
    ],
    ids=["other queries", "empty file", "kinds not asked for", "positives"],
)  # fmt: skip
def test_a_run_without_any_hard_negative_is_refused(
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], Any],
    values: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "negatives.parquet"
    change(path)
    config = configured(toy, tmp_path / "run", stage="hard_negatives", negatives=str(path), max_steps=1, **values)
    assert main(arguments_of(config, tmp_path)) == 2
    error = one_line_error(capsys)
    assert f"{path}: none of the " in error
    assert message in error
    assert not (tmp_path / "run" / "hard_negatives" / "best").exists()


def test_queries_without_hard_negatives_are_counted(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "negatives.parquet", corpus_id=["img-7", "txt-1", "img-1"])
    config = configured(toy, tmp_path / "run", stage="hard_negatives", negatives=str(path), max_steps=3)
    run_stages(config)
    queries = len(training_data().judged_queries())
    assert (
        f"{queries - 1} of {queries} queries have no hard negative (asked for: 1 image, 1 text per query)"
        in caplog.text
    )
    assert "hard negatives that are relevant to their query and are not used: 1" in caplog.text
    reset_engine()
    run_stages(configured(toy, tmp_path / "plain", max_steps=3))
    assert read_log(tmp_path / "run" / "hard_negatives") != read_log(tmp_path / "plain" / "in_batch")


def test_a_positive_is_never_drawn_as_a_negative() -> None:
    data = training_data()
    view = DocumentView(data)
    rows = {name: row for row, name in enumerate(data.corpus_ids)}
    positives = [rows[name] for name in data.qrels["q-cat-red"]]
    negatives = {"q-cat-red": {"image": [row for row in positives if view.kinds[row] == "image"] + [rows["img-7"]]}}
    examples = RetrievalExamples(data, view, negatives, {"image": 2})
    number = list(data.judged_queries()).index("q-cat-red")
    drawn = {document.row for epoch in range(5) for document in examples[SampleKey(0, epoch, number)].documents}
    assert drawn - set(positives) == {rows["img-7"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (500, 600)}, r"`window` must begin before rank 100, the `depth`; got \(500, 600\)"),
        ({"window": (100, 101)}, "`window` must begin before rank 100"),
        ({"depth": 5, "window": (5, 9)}, "`window` must begin before rank 5"),
        ({"images": 0, "texts": 0}, "`images` and `texts` are both 0"),
        ({"max_score": float("nan")}, "`max_score` must be a finite number; got nan"),
        ({"relative_margin": float("inf")}, "`relative_margin` must be a finite number; got inf"),
    ],
)
def test_options_that_keep_no_negative_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiningOptions(**options)
    assert MiningOptions(window=(99, 600)).window == (99, 600)


def test_the_command_refuses_a_window_behind_the_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ciea(["mine", "m", "d", "--output", str(tmp_path / "out"), "--window", "500", "600"]) == 2
    assert "`window` must begin before rank 100, the `depth`; got (500, 600)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mining_that_keeps_nothing_fails_with_the_counts() -> None:
    data = training_data()
    with pytest.raises(
        ValueError, match=r"no negative was kept \(.*[1-9]\d* dropped: score too high.*change the window"
    ):
        mine_negatives(tiny_model(), data, MiningOptions(max_score=-1.0))


def test_a_batch_of_one_query_is_warned_of(toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        run_stages(configured(toy, tmp_path / "run", batch_size=1, max_steps=2, dev_split=None))
    assert "with `batch_size` 1 a query has no negatives, and the contrastive loss is always 0" in caplog.text
    assert [line["contrastive"] for line in read_log(tmp_path / "run" / "in_batch")] == [0.0, 0.0]
    caplog.clear()
    reset_engine()
    path = write(tmp_path / "negatives.parquet")
    options = {"stage": "hard_negatives", "negatives": str(path), "batch_size": 1, "max_steps": 1}
    run_stages(configured(toy, tmp_path / "hard", **options))
    assert "batch_size" not in caplog.text
