"""Checking data sets: every planted issue is named, and nothing else; the copy without issues has none."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ciea_hf.data.check_result as findings_module
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.check_result import IssueCollector
from ciea_hf.data.checking import Checker
from ciea_hf.data.export import write_cleaned
from ciea_hf.data.loading import open_reader
from tests.data.test_readers import plain
from tests.support import sample_datasets
from tests.support.sample_datasets import CAPTIONS, COLOURS, UNUSED

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.data.check_result import CheckResult
    from ciea_hf.data.readers.base import DatasetReader

Named = tuple[str, str, int | None, str | None]  # kind, file, number and id of an issue
TRUNCATED = ("unreadable-image", "imgs.tsv", 1, "30000007")
NOT_USED = ("unused-image", "imgs.lineidx.new", 7, UNUSED)


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")


def check(
    folder: Path, form: str = "auto", splits: list[str] | None = None, workers: int = 0
) -> tuple[DatasetReader, CheckResult]:
    source = open_reader(folder, form, IssueCollector(folder))
    result = Checker(source, workers=workers).run(splits)
    return source, result


def named(result: CheckResult) -> list[Named]:
    return sorted((issue.kind, issue.location.file, issue.location.number, issue.id) for issue in result.issues)


def png_of_size(width: int, height: int) -> bytes:
    """The head of a PNG file of that size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8-sig")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def append(file: Path, *rows: Any) -> None:
    text = file.read_text(encoding="utf-8-sig").rstrip("\r\n") + "\n"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def set_image(folder: Path, name: str, payload: bytes) -> int:
    """Replace the content of an image within a line of the same length, so the offsets stay valid."""
    lines = (folder / "imgs.tsv").read_bytes().split(b"\n")
    number = next(n for n, line in enumerate(lines) if line.startswith(name.encode()))
    payload = payload.ljust(len(lines[number]) - len(name) - 1, payload[-1:])
    lines[number] = name.encode() + b"\t" + payload
    (folder / "imgs.tsv").write_bytes(b"\n".join(lines))
    return number + 1


def with_faults(folder: Path) -> tuple[Path, list[Named]]:
    """Write a sample with 24 planted issues; return the folder and the issues to be found."""
    sample_datasets.webqa(folder)
    said: list[Named] = [TRUNCATED, NOT_USED]
    append(folder / "all_docs.json", {"snippet_id": "d5bc8", "fact": "Red is no colour."})
    said.append(("duplicate-document", "all_docs.json", 4, "d5bc8"))
    append(folder / "all_docs.json", {"snippet_id": "d6aa1", "fact": "A square has four sides."})
    said.append(("repeated-document", "all_docs.json", 5, "d6aa1"))
    append(folder / "all_docs.json", {"snippet_id": "d-empty", "fact": "  "}, {"fact": "nameless"}, '{"snippet_id": ')
    said += [("empty-document", "all_docs.json", 6, "d-empty"), ("unreadable", "all_docs.json", 7, None)]
    said.append(("unreadable", "all_docs.json", 8, None))
    replace(folder / "all_imgs.json", '"a cyan square"', '""')
    said.append(("empty-caption", "all_imgs.json", 5, "30000005"))
    append(folder / "all_imgs.json", {"image_id": 30000044, "caption": "not there"})
    said.append(("image-not-indexed", "all_imgs.json", 7, "30000044"))
    said.append(("unreadable-image", "imgs.tsv", set_image(folder, "30000001", b"####"), "30000001"))
    offsets = dict(line.split("\t") for line in (folder / "imgs.lineidx.new").read_text().splitlines())
    replace(
        folder / "imgs.lineidx.new", f"30000002\t{offsets['30000002']}", f"30000002\t{int(offsets['30000002']) + 5}"
    )
    said.append(("offset", "imgs.lineidx.new", 3, "30000002"))
    append(folder / "imgs.lineidx.new", f"30000055\t{int(offsets['30000002']) + 7}")
    said += [("offset", "imgs.lineidx.new", 8, "30000055"), ("unused-image", "imgs.lineidx.new", 8, "30000055")]
    with (folder / "imgs.tsv").open("ab") as file:
        offset = file.tell()
        file.write(b"30000066\t" + base64.b64encode(png_of_size(20_000, 20_000)) + b"\n30000077\tAAAA\n")
        file.write(b"30000000\tAAAA\n")
    append(folder / "imgs.lineidx.new", f"30000066\t{offset}")
    append(folder / "all_imgs.json", {"image_id": 30000066, "caption": "large"})
    said += [("large-image", "imgs.tsv", 8, "30000066"), ("line-not-indexed", "imgs.tsv", 9, "30000077")]
    said.append(("line-not-indexed", "imgs.tsv", 10, "30000000"))
    replace(folder / "train.json", '"img_posFacts": ["30000000"]', '"img_posFacts": ["30000000", "30000888"]')
    said.append(("unknown-document", "train.json", 1, "q1"))
    replace(folder / "train.json", '"d70ff"', '"d-gone"')
    said.append(("unknown-negative", "train.json", 1, "q1"))
    rows = [sample_datasets.webqa_row("q1", "which square is green"), sample_datasets.webqa_row("none", "which square")]
    rows.append(sample_datasets.webqa_row("q4", "another one") | {"txt_posFacts": ["d70ff"], "img_posFacts": []})
    rows.append(sample_datasets.webqa_row("blank", " ") | {"txt_posFacts": ["d70ff"]})
    rows.append(sample_datasets.webqa_row("copy", "Which  square is BLUE") | {"img_posFacts": ["30000002"]})
    append(folder / "train.json", *rows)
    number = len((folder / "train.json").read_text().splitlines()) - len(rows)
    said += [("duplicate-query", "train.json", number + 1, "q1"), ("no-positive", "train.json", number + 2, "none")]
    said += [("reused-query-id", "train.json", number + 3, "q4"), ("empty-query", "train.json", number + 4, "blank")]
    said += [("leak", "train.json", number + 5, "copy"), ("shared-positive", "train.json", number + 5, "copy")]
    said.append(("unknown-query", "train.json", number + 4, "blank"))
    append(folder / "dev_qrels.txt", "q3 0 30000002 0", "q3 0", "q9 0 30000002 1")
    said += [("conflicting-judgement", "dev_qrels.txt", 2, "q3"), ("unreadable", "dev_qrels.txt", 3, None)]
    said.append(("unknown-query", "dev_qrels.txt", 4, "q9"))
    append(folder / "test_qrels.txt", "q4\t30000000\t1")
    said += [("disagreement", "test.json", 1, "q4"), ("shared-positive", "train.json", 1, "q1")]
    return folder, sorted(said, key=str)


def test_a_sound_sample_has_no_issues_but_its_quirks(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    _, result = check(folder)
    assert named(result) == [TRUNCATED, NOT_USED]
    assert result.blocking_errors == []
    assert result.counts["corpus: images"] == 6
    assert result.counts["train: judgements"] == 4


def test_all_planted_issues_are_named_and_nothing_else(tmp_path: Path) -> None:
    folder, said = with_faults(tmp_path / "data")
    _, result = check(folder)
    found = sorted(((f.kind, f.location.file, f.location.number, f.id) for f in result.issues), key=str)
    assert found == said
    assert any("duplicate" in kind for kind, *_ in found)
    assert len(result.blocking_errors) == 7  # kinds of errors


def test_the_copy_has_no_issues_and_nothing_valid_is_lost(tmp_path: Path) -> None:
    folder, _ = with_faults(tmp_path / "data")
    source, result = check(folder)
    counts = write_cleaned(source, result, tmp_path / "clean")
    _, again = check(tmp_path / "clean")
    assert [issue for issue in again.issues if issue.level == "error"] == []
    assert [kind for kind, *_ in named(again)] == ["reused-query-id", "shared-positive"]
    assert again.blocking_errors == []
    train, dev = (load_retrieval_dataset(tmp_path / "clean", split) for split in ("train", "dev"))
    kept = {"d5bc8", "d6aa1", "d70ff", "30000000", "30000002", "30000003", "30000005"}
    assert set(train.corpus_ids) == kept
    assert counts == {"corpus": 7, "train": 3, "dev": 1, "test": 2}
    assert train.qrels == {"q1": {"30000000": 1}, "q2": {"d5bc8": 1}, "q4": {"d70ff": 1}}
    assert dev.qrels == {"q3": {"30000002": 1}}
    rows = {name: row for row, name in enumerate(train.corpus_ids)}
    assert train.corpus[rows["30000002"]]["image"].getpixel((0, 0)) == COLOURS["30000002"]  # whose offset was wrong
    assert train.corpus[rows["30000005"]]["text"] is None  # whose caption was empty
    assert train.corpus[rows["d5bc8"]]["text"] == "Red is a colour."


def test_an_image_that_the_index_forgets_is_found_again(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    text = (folder / "imgs.lineidx.new").read_text()
    (folder / "imgs.lineidx.new").write_text(re.sub(r"30000003\t\d+\n", "", text))
    source, result = check(folder)
    assert named(result) == sorted(
        [
            TRUNCATED,
            ("image-not-indexed", "all_imgs.json", 4, "30000003"),
            ("line-not-indexed", "imgs.tsv", 3, "30000003"),
            ("unused-image", "imgs.lineidx.new", 6, UNUSED),
        ]
    )
    write_cleaned(source, result, tmp_path / "clean")
    data = load_retrieval_dataset(tmp_path / "clean", "test")
    assert data.qrels["q4"] == {"30000003": 1, "30000005": 1}
    assert data.corpus[data.corpus_ids.index("30000003")]["image"].getpixel((0, 0)) == COLOURS["30000003"]


@pytest.mark.parametrize("form", sample_datasets.SAMPLES)
@pytest.mark.parametrize("workers", [0, 3])
def test_every_format_is_checked(tmp_path: Path, form: str, workers: int) -> None:
    folder = sample_datasets.SAMPLES[form](tmp_path / "data")
    source, result = check(folder, workers=workers)
    quirks = {("unreadable-image", "30000007"), ("unused-image", UNUSED)}
    quirks |= {("unused-image", f"3000000{number}") for number in (4, 6)}  # of the original: lines without a fact
    assert {(kind, plain(name or "")) for kind, _, _, name in named(result)} <= quirks
    assert "unreadable-image" in {kind for kind, *_ in named(result)}
    assert result.blocking_errors == []
    write_cleaned(source, result, tmp_path / "clean")
    _, again = check(tmp_path / "clean")
    assert named(again) == []
    assert again.counts["corpus: images" if form != "parquet" else "test: images"] == len(CAPTIONS) - 1


def test_images_that_are_the_same_leak_too(tmp_path: Path) -> None:
    folder = sample_datasets.json_form(tmp_path / "data")
    (folder / "images" / "30000000.png").write_bytes(
        sample_datasets.png(COLOURS["30000003"])
    )  # relevant in train and in test
    _, result = check(folder)
    assert ("same-image", "corpus.jsonl", 7, "30000003") in named(result)
    shared = result.issues.of("shared-positive")
    assert [(issue.location.file, issue.id) for issue in shared] == [("queries.jsonl", "q1")]
    assert "the same image ('30000003') to one of test" in shared[0].message


def test_missing_files(tmp_path: Path) -> None:
    folder = sample_datasets.edis(tmp_path / "data")
    (folder / "edis_image" / "guardian" / "30000002.jpg").unlink()
    (folder / "edis_image" / "guardian" / "30000003.jpg").write_bytes(b"<html>404</html>")
    _, result = check(folder)
    assert [(kind, name) for kind, _, _, name in named(result)] == [
        ("missing-image", "30000002"),
        ("unreadable-image", "30000003"),
        ("unreadable-image", "30000007"),
    ]
    (folder / "EDIS_candidates_1m.json").write_text('[{"id": "x", "image": "guardian/30000000.jpg"},\n {"id"')
    assert ("unreadable", "EDIS_candidates_1m.json", 2, None) in named(check(folder)[1])
    webqa = sample_datasets.webqa(tmp_path / "webqa")
    (webqa / "imgs.tsv").unlink()
    _, result = check(webqa, "webqa")
    assert ("missing-file", "imgs.tsv", None, None) in named(result)
    assert result.blocking_errors[0].startswith("missing files that the format requires")


def test_repeated_documents_may_differ(tmp_path: Path) -> None:
    folder = sample_datasets.webqa_original(tmp_path / "data")
    replace(folder / "WebQA_train_val.json", "a green square", "a square of green")
    _, result = check(folder)
    issues = result.issues.of("varying-document")
    assert [issue.id for issue in issues] == ["30000001"]
    lines = (folder / "WebQA_train_val.json").read_text().splitlines()
    assert lines[(issues[0].location.number or 0) - 1] == ' "q3": {'


def test_tables_name_their_rows(tmp_path: Path) -> None:
    folder = sample_datasets.mteb(tmp_path / "data")
    file = folder / "corpus" / "test-00000-of-00001.parquet"
    table = pq.read_table(file)
    changed = table.slice(0, 1).set_column(2, "text", pa.array(["x"]))
    pq.write_table(pa.concat_tables([table, table.slice(4, 1), changed]), file)
    _, result = check(folder)
    location = "corpus/test-00000-of-00001.parquet"
    assert named(result) == [
        ("duplicate-document", location, 11, "d5bc8"),
        ("repeated-document", location, 10, "30000001"),
        ("unreadable-image", location, 9, "30000007"),
    ]
    assert str(result.issues.of("duplicate-document")[0]).startswith(
        f"{location}, row 11: 'd5bc8': the document already exists"
    )
    with pytest.raises(ValueError, match=r"row 11: 'd5bc8': the document already exists \(row 1\)"):
        load_retrieval_dataset(folder)


def test_many_issues_are_counted_and_some_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(findings_module, "KEPT", 3)
    folder = sample_datasets.webqa(tmp_path / "data")
    append(folder / "all_docs.json", *["{"] * 8)
    _, result = check(folder)
    assert result.issues.counts["unreadable"] == 8
    assert len(result.issues.of("unreadable")) == 3
