"""Mutated specimens of every format: check, load and convert say the same, and no error is unclear."""

from __future__ import annotations

import json
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.checking import Checker
from ciea_hf.data.export import convert_dataset
from ciea_hf.data.loading import open_reader
from ciea_hf.evaluation.runs import read_qrels, read_run
from ciea_hf.retrieval.records import metadata_rows
from tests.fuzz.outcomes import VALUES, Tally, cases, mutated_bytes, mutated_json, outcome
from tests.support.sample_datasets import SAMPLES

if TYPE_CHECKING:
    import random
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def mutate(folder: Path, numbers: random.Random) -> None:
    """Change one file of a data set."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix not in (".png", ".jpg")]
    file = numbers.choice(files)
    if file.suffix == ".parquet" and numbers.random() < 0.8:
        table = pq.read_table(file)
        name = numbers.choice(table.column_names)
        if numbers.random() < 0.2:
            table = table.drop_columns([name])
        else:
            values = table[name].to_pylist()
            values[numbers.randrange(len(values))] = numbers.choice(VALUES)
            try:
                column = pa.array(values)
                pq.write_table(pa.table({"a": column}), folder / "unused.tmp")
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):  # no column of a table
                column = pa.array([str(numbers.choice((1, 2, "x")))] * len(values))
            table = table.set_column(table.column_names.index(name), name, column)
        (folder / "unused.tmp").unlink(missing_ok=True)
        pq.write_table(table.replace_schema_metadata(None), file)
    elif file.suffix in (".json", ".jsonl") and numbers.random() < 0.7:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        try:
            file.write_text(json.dumps(mutated_json(json.loads("\n".join(lines)), numbers)))
        except json.JSONDecodeError:  # JSON lines
            row = numbers.choice([row for row, line in enumerate(lines) if line.strip()])
            lines[row] = json.dumps(mutated_json(json.loads(lines[row]), numbers))
            file.write_text("\n".join(lines) + "\n")
    else:
        file.write_bytes(mutated_bytes(file.read_bytes(), numbers))


@pytest.mark.parametrize("form", SAMPLES)
def test_check_load_and_convert_agree(tmp_path: Path, form: str) -> None:
    original = SAMPLES[form](tmp_path / "original")
    tally = Tally()
    for seed, numbers in cases(8):
        folder = tmp_path / f"case-{seed}"
        shutil.copytree(original, folder)
        mutate(folder, numbers)
        _compare(folder, form, tally, f"seed {seed}")
        shutil.rmtree(folder)
    tally.check()


def _compare(folder: Path, form: str, tally: Tally, case: str) -> None:
    """Record the outcomes of check, load and convert, and where they disagree."""
    out = folder.with_name(f"{folder.name}-converted")
    outcomes = {
        "check": outcome(lambda: Checker(open_reader(folder, form)).run()),
        "load": outcome(lambda: _load(folder, form)),
        "convert": outcome(lambda: convert_dataset(open_reader(folder, form), out)),
    }
    for name, (found, detail) in outcomes.items():
        tally.add(found, f"{case}: {name}: {detail}")
    (checked, result), (loaded, content), (converted, _) = outcomes.values()
    if checked == "accepted" and loaded != "unclear":
        # Only the check reads the images, and finds offsets that do not point at one.
        errors = [issue for issue in result.issues if issue.level == "error" and issue.kind != "offset"]
        if bool(errors) != (loaded == "clear"):
            tally.add("unclear", f"{case}: check says {[str(issue) for issue in errors]}, load {content!s:.300}")
    if loaded == converted == "accepted":
        again = _load(out, "parquet")
        if again != content:
            tally.add("unclear", f"{case}: converted data differ from loaded data: {again} {content}")


def _load(folder: Path, form: str) -> dict[str, Any]:
    """Return what load makes of all splits, without the images' bytes."""
    found = {}
    for split in open_reader(folder, form).splits:
        data = load_retrieval_dataset(folder, split, form)
        if data.query_texts:  # convert writes no empty split
            corpus = list(zip(data.corpus_ids, data.corpus["text"], data.document_kinds.values(), strict=True))
            found[split] = corpus, metadata_rows(data.corpus), data.query_texts, data.qrels
    return found


JUDGED = (
    b"q1 0 d1 1\nq1 0 d2 0\nq2 0 d3 2\n",
    b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td3\t2\n",
    b'{"query-id": "q1", "corpus-id": "d1", "score": 1}\n{"query-id": "q2", "corpus-id": "d3", "score": 2}\n',
)
RANKED = (b"q1 Q0 d1 1 0.5 x\nq1 Q0 d2 2 0.25 x\nq2 Q0 d2 1 0.25 x\n",)


@pytest.mark.parametrize(("read", "contents"), [(read_qrels, JUDGED), (read_run, RANKED)])
def test_judgements_and_runs(tmp_path: Path, read: Any, contents: tuple[bytes, ...]) -> None:
    """Accepted entries occur in one line of the file; errors name the line."""
    tally = Tally()
    for seed, numbers in cases(60):
        path = tmp_path / "file"
        path.write_bytes(mutated_bytes(numbers.choice(contents), numbers))
        found, detail = outcome(partial(read, path))
        if found == "clear" and str(path) not in detail:
            found = "unclear"
        if found == "accepted":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            rows = [(query, document) for query, row in detail.items() for document in row]
            if any(not any(query in line and document in line for line in lines) for query, document in rows):
                found, detail = "unclear", f"{rows} are in no line of {lines}"
        tally.add(found, f"seed {seed}: {detail}")
    tally.check()
