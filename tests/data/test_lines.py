"""Text files, read with the location of every entry; above all large JSON documents."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

import ciea_hf.data.parsing as lines_module
from ciea_hf.data.issues import Issue, Location, raise_on_error, relative
from ciea_hf.data.parsing import json_entries, json_lines

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.data.issues import IssueHandler


def collected() -> tuple[list[Issue], IssueHandler]:
    found: list[Issue] = []
    return found, lambda kind, location, name, message: found.append(Issue(kind, location, name, message))


def random_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(6 if depth < 3 else 4)
    if kind == 0:
        return rng.choice([None, True, -1.5e-7, 12345678901234567890, 0])
    if kind < 4:
        return "".join(rng.choice('ab"\\\n\t {}[],:é☃𝄞') for _ in range(rng.randrange(40)))
    if kind == 4:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.randrange(99)): random_value(rng, depth + 1) for _ in range(rng.randrange(4))}


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_documents_are_read_as_json_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(lines_module, "_CHUNK", chunk)
    rng = random.Random(0)
    rows = [{"n": i, "value": random_value(rng)} for i in range(40)]
    for ascii_only in (True, False):
        text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
        (tmp_path / "list.json").write_text(text, encoding="utf-8-sig")
        found = list(json_entries(tmp_path / "list.json"))
        assert [entry.value for entry in found] == rows
        if indent:  # the line in which each begins, found in another way
            starts = [number for number, line in enumerate(text.split("\n"), start=1) if line == " {"]
            assert [entry.location.number for entry in found] == starts
        keyed = {f"k{i}": row for i, row in enumerate(rows)}
        (tmp_path / "object.json").write_text(json.dumps(keyed, indent=indent, ensure_ascii=ascii_only), "utf-8")
        assert {entry.key: entry.value for entry in json_entries(tmp_path / "object.json")} == keyed
        (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        assert [entry.value for entry in json_entries(tmp_path / "lines.json")] == rows


@pytest.mark.parametrize("text", ["[]", " [ ] ", "{}", "\n{ }\n"])
def test_empty_documents_hold_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert list(json_entries(tmp_path / "a.json")) == []


@pytest.mark.parametrize(
    ("text", "read", "line"),
    [
        ('[{"a": 1},\n {"a": 2},\n {"a" 3}]', 2, 3),
        ('[{"a": 1},\n {"a": 2}', 2, 2),
        ('{"x": {"a": 1},\n "y" {"a": 2}}', 1, 2),
        ('[{"a": 1}\n {"a": 2}]', 1, 2),
        ("nothing", 0, 1),
        ("", 0, 1),
    ],
)
def test_a_broken_document_is_read_as_far_as_it_goes(tmp_path: Path, text: str, read: int, line: int) -> None:
    (tmp_path / "a.json").write_text(text)
    issues, report = collected()
    assert len(list(json_entries(tmp_path / "a.json", report))) == read
    assert [(issue.kind, issue.location.number) for issue in issues] == [("unreadable", line)]


def test_an_endless_entry_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_CHUNK", 10)
    monkeypatch.setattr(lines_module, "_LONGEST_ENTRY", 1000)
    read: list[int] = []
    original = lines_module._DocumentReader._more

    def counted(self: Any) -> Any:
        read.append(1)
        return original(self)

    monkeypatch.setattr(lines_module._DocumentReader, "_more", counted)
    (tmp_path / "a.json").write_text('[{"a": "' + "x" * 1_000_000)
    issues, report = collected()
    assert list(json_entries(tmp_path / "a.json", report)) == []
    assert len(issues) == 1
    assert len(read) < 12  # twice as much each time, and far from the whole file


def test_lines_are_read_with_their_numbers(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": "\xc3\xbc\xe2\x80\xa8"}\n[1]\n\xff\xfe\n{"a": 2\n{"a": 3}'
    (tmp_path / "a.json").write_bytes(content)
    issues, report = collected()
    found = [(entry.location.number, entry.value["a"]) for entry in json_lines(tmp_path / "a.json", report)]
    assert found == [(1, 1), (3, "ü\u2028"), (7, 3)]
    assert [issue.location.number for issue in issues] == [4, 5, 6]
    assert [
        next(words for words in ("JSON object", "not UTF-8", "invalid JSON") if words in issue.message)
        for issue in issues
    ] == ["JSON object", "not UTF-8", "invalid JSON"]


def test_only_errors_are_raised(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "a" / "b.json"), 7)
    with pytest.raises(ValueError, match=r"b\.json:7: 'x': is wrong .*--fix"):
        raise_on_error("unreadable", location, "x", "is wrong")
    with pytest.raises(FileNotFoundError, match=r"b\.json: gone"):
        raise_on_error("missing-file", location._replace(number=None), None, "gone")
    raise_on_error("empty-caption", location, "x", "is empty")
    assert str(relative(location, tmp_path)) == "a/b.json:7"
    assert str(Location("t.parquet", 3, "row")) == "t.parquet, row 3"
