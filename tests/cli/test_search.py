"""`ciea search` and `ciea index`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import ciea_hf.data.dataset as dataset_module
from ciea_hf import CIEAModel
from ciea_hf.cli import main
from ciea_hf.retrieval import folder, load_corpus
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.retrieval.indexes.lancedb import LanceIndex
from tests.support.commands import fails
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cache")


def test_search_lists_hits_and_marks_the_known_ones(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    sheet, hits = tmp_path / "hits.png", tmp_path / "hits.jsonl"
    command = ["search", model, dataset, "a red cat", "--query-id", "q-pic", "--top-k", "6"]
    assert main([*command, "--contact-sheet", str(sheet), "--output", str(hits)]) == 0
    printed = capsys.readouterr().out
    content = [json.loads(line) for line in hits.read_text().splitlines()]
    assert [(row["query"], row["rank"]) for row in content] == [
        (query, rank) for query in ("a red cat", "red cup") for rank in range(1, 7)
    ]
    assert set(content[0]) == {"query", "rank", "id", "score", "kind", "text", "metadata"}
    assert re.findall(r"^\*.*(img-red|other)", printed, flags=re.MULTILINE) == ["img-red"]
    assert Image.open(sheet).width > 6 * 200
    assert len(list((cache / "indexes").iterdir())) == 1
    assert main([*command]) == 0
    assert capsys.readouterr().out.replace("\n\n", "\n") in printed.replace("\n\n", "\n")


def test_queries_may_be_given_anywhere(model: str, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for order in (["a red cat", "the house", "--top-k", "2"], ["--top-k", "2", "a red cat", "the house"]):
        assert main(["search", model, dataset, *order]) == 0
        printed.append(capsys.readouterr().out)
    assert main(["search", model, dataset, "a red cat", "--top-k", "2", "the house"]) == 0
    assert printed[0] == printed[1] == capsys.readouterr().out
    for arguments in (["search", model, dataset, "a red cat", "--colour", "red"], ["evaluate", model, dataset, "more"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "unrecognized arguments" in capsys.readouterr().err


def test_search_in_an_index_folder(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    assert main(["index", model, dataset, "--output", str(index), "--precision", "float16", "--shard-size", "4"]) == 0
    assert "6 documents, complete" in capsys.readouterr().out
    assert (
        main(["search", model, str(index), "a red cat", "--top-k", "2", "--contact-sheet", str(tmp_path / "a.png")])
        == 0
    )
    assert (tmp_path / "a.png").exists()
    shared = ["index", model, dataset, "--output", str(tmp_path / "parts"), "--shard-size", "1"]
    assert main([*shared, "--shard", "2/2"]) == 0
    assert "3 shards are missing" in capsys.readouterr().out
    assert "3 of 6 shards are missing" in fails(capsys, "search", model, str(tmp_path / "parts"), "a red cat")
    assert main([*shared, "--shard", "1/2"]) == 0
    assert "complete" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*shared, "--shard", "3/2"])
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    capsys.readouterr()
    assert "another model" in fails(capsys, "search", str(other), str(index), "a red cat")


def folder_of_images(folder: Path, count: int = 4) -> str:
    """A data set whose images are files."""
    names = [f"p{number}" for number in range(count)]
    (folder / "qrels").mkdir(parents=True)
    for number, name in enumerate(names):
        toy_image(number).save(folder / f"{name}.png")
    rows = [{"id": name, "text": f"the {name}", "image": f"{name}.png"} for name in names]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "a red cat"}))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp1\t1\n")
    return str(folder)


def test_a_search_of_texts_in_an_index_hashes_the_weights_once_and_runs_no_vision_tower(
    model: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["index", model, dataset, "--output", str(tmp_path / "index")]) == 0
    hashed: list[Any] = []
    seen: list[Any] = []
    tower = CIEAModel.get_vision_features

    def fingerprint(model: CIEAModel) -> str:
        hashed.append(model)
        return model_fingerprint(model)

    def features(model: CIEAModel, *args: Any) -> Any:
        seen.append(args)
        return tower(model, *args)

    monkeypatch.setattr(folder, "model_fingerprint", fingerprint)
    monkeypatch.setattr(CIEAModel, "get_vision_features", features)
    assert main(["search", model, str(tmp_path / "index"), "a cup"]) == 0
    assert (len(hashed), len(seen)) == (1, 0)
    toy_image().save(tmp_path / "a.png")
    assert main(["search", model, str(tmp_path / "index"), "--image", str(tmp_path / "a.png")]) == 0
    assert seen


def test_replaced_images_are_embedded_again(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "FINGERPRINTED_IMAGES", 1)  # only the first; of the others the file sizes count
    data, index = folder_of_images(tmp_path / "data"), str(tmp_path / "index")
    assert main(["index", model, data, "--output", index]) == 0
    assert main(["search", model, data, "a red cat"]) == 0
    before = capsys.readouterr().out
    Image.new("RGB", (99, 40), "red").save(tmp_path / "data" / "p3.png")
    assert main(["search", model, data, "a red cat"]) == 0
    assert capsys.readouterr().out != before
    assert "another corpus" in fails(capsys, "index", model, data, "--output", index)
    sheet = str(tmp_path / "a.png")
    assert "has changed since it was indexed" in fails(capsys, "search", model, index, "x", "--contact-sheet", sheet)
    assert main(["search", model, index, "a red cat"]) == 0


def test_a_broken_image_is_never_skipped_silently(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, index = folder_of_images(tmp_path / "data"), str(tmp_path / "index")
    (tmp_path / "data" / "p2.png").write_bytes(b"no picture")
    lenient = ["--on-broken-image", "caption"]
    commands = ["search", model, data, "a red cat"], ["index", model, data, "--output", index]
    for command in commands:
        assert "document 'p2': image" in fails(capsys, *command)
        assert main([*command, *lenient]) == 0
        capsys.readouterr()
    assert "document 'p2': image" in fails(capsys, *commands[0])
    assert "another on_broken_image" in fails(capsys, *commands[1])
    sheet = tmp_path / "hits.png"
    assert main([*commands[0], *lenient, "--contact-sheet", str(sheet)]) == 0
    assert sheet.is_file()
    assert "document 'p2' is left out" in caplog.text


def test_an_index_fixes_its_options(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "index")
    assert main(["index", model, dataset, "--output", index, "--content", "caption"]) == 0
    for option in (["--split", "dev"], ["--precision", "float16"], ["--on-broken-image", "caption"]):
        assert f"{option[0]} cannot be set for" in fails(capsys, "search", model, index, "x", *option)
    assert main(["search", model, index, "a red cat", "--query-id", "q-pic"]) == 0
    from_index = capsys.readouterr().out
    assert main(["search", model, dataset, "a red cat", "--query-id", "q-pic", "--content", "caption"]) == 0
    assert capsys.readouterr().out == from_index


def test_a_dash_is_not_searched_for(model: str, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`--queries -` reads queries from standard input" in fails(capsys, "search", model, dataset, "-")


def test_a_folder_with_another_manifest_is_not_an_index(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of_images(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").write_text("{}")
    assert main(["search", model, data, "a red cat"]) == 0
    (tmp_path / "data" / "shards").mkdir()
    assert "manifest.json has an unexpected format" in fails(capsys, "search", model, data, "a red cat")


def test_a_text_equal_to_a_file_name_is_a_text(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "a", "text": "cat.png"}, {"id": "b", "text": "data:image/png is a prefix"}]
    (tmp_path / "data" / "qrels").mkdir(parents=True)
    (tmp_path / "data" / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "data" / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "cat.png"}))
    (tmp_path / "data" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    printed = []
    for _ in range(2):
        assert main(["search", model, "data", "cat.png", "--no-cache"]) == 0
        printed.append(capsys.readouterr().out)
        toy_image().save("cat.png")
    assert printed[0] == printed[1]


@pytest.mark.parametrize("option", ["--output", "--contact-sheet"])
def test_unwritable_outputs_are_rejected_before_searching(
    model: str, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert f"{option} must be a file; {tmp_path} is a folder" in fails(
        capsys, "search", model, dataset, "x", option, str(tmp_path)
    )
    assert capsys.readouterr().out == ""


def dataset_with_metadata(folder: Path) -> str:
    """A data set of four captioned images and two texts, with metadata and without queries."""
    folder.mkdir()
    rows = []
    for number in range(4):
        toy_image(number).save(folder / f"p{number}.png")
        rows.append(
            {"id": f"p{number}", "text": f"a red cat {number}", "image": f"p{number}.png", "year": 2018 + number}
        )
    rows += [{"id": "t0", "text": "the small house", "site": "wiki", "code": "007"}, {"id": "t1", "text": "bread"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def hits_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--where", "modality=text"], {"t0", "t1"}),
        (["--where", "year>=2020"], {"p2", "p3"}),
        (["--where", "year=2018"], {"p0"}),
        (["--where", "code=007"], {"t0"}),
        (["--where", "site!=wiki", "--where", "year<2020"], {"p0", "p1"}),
        (["--filter", '{"$or": [{"site": "wiki"}, {"year": {"$in": [2021]}}]}'], {"t0", "p3"}),
        (["--filter", '{"year": {"$gte": 2019}}', "--where", "year<=2020"], {"p1", "p2"}),
    ],
)
def test_filters_of_the_command_line(model: str, tmp_path: Path, options: list[str], expected: set[str]) -> None:
    data, output = dataset_with_metadata(tmp_path / "data"), tmp_path / "hits.jsonl"
    assert main(["search", model, data, "a red cat", "--top-k", "6", "--output", str(output), *options]) == 0
    assert {hit["id"] for hit in hits_of(output)} == expected


def test_invalid_filters_are_rejected(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset_with_metadata(tmp_path / "data")
    search = ["search", model, data, "a red cat"]
    assert "--where must be key=value" in fails(capsys, *search, "--where", "year")
    assert "the field 'yaer' is not in the index; its fields are code, id" in fails(
        capsys, *search, "--where", "yaer=1"
    )
    for value in ("{", "[1]", "3"):
        with pytest.raises(SystemExit):
            main([*search, "--filter", value])
    capsys.readouterr()


def test_queries_of_a_file_and_images(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = dataset_with_metadata(tmp_path / "data"), tmp_path / "hits.jsonl"
    image = str(tmp_path / "data" / "p1.png")
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(map(json.dumps, [{"text": "bread"}, {"image": "data/p1.png"}, {"text": "a", "image": "data/p1.png"}]))
    )
    command = ["search", model, data, "--output", str(output), "--top-k", "2"]
    assert main([*command, "--queries", str(tmp_path / "queries.jsonl")]) == 0
    from_file = hits_of(output)
    assert [hit["query"] for hit in from_file[::2]] == ["bread", image, f"a ({image})"]
    assert from_file[0]["id"] == "t1"
    assert main([*command, "bread"]) == 0
    alone = hits_of(output)
    assert main([*command, "--image", image]) == 0
    alone += hits_of(output)
    assert main([*command, "a", "--image", image]) == 0
    alone += hits_of(output)
    assert [(hit["query"], hit["id"]) for hit in alone] == [(hit["query"], hit["id"]) for hit in from_file]
    assert "absent.png not found" in fails(capsys, *command, "--image", "absent.png")


def test_append_prune_and_verify(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, index = dataset_with_metadata(tmp_path / "data"), str(tmp_path / "index")
    assert main(["index", model, data, "--output", index, "--hybrid", "--shard-size", "4"]) == 0
    assert main(["index", "--verify", index]) == 0
    assert "all files match" in capsys.readouterr().out
    rows = (tmp_path / "data" / "corpus.jsonl").read_text().splitlines()
    (tmp_path / "data" / "corpus.jsonl").write_text("\n".join([*rows[1:], '{"id": "new", "text": "a blue boat"}']))
    assert "--append" in fails(capsys, "index", model, data, "--output", index)
    assert main(["index", model, data, "--output", index, "--append", "--prune", "--hybrid"]) == 0
    assert "1 documents removed" in capsys.readouterr().out
    output = tmp_path / "hits.jsonl"
    assert main(["search", model, index, "blue boat", "--hybrid", "--top-k", "9", "--output", str(output)]) == 0
    found = hits_of(output)
    assert found[0]["id"] == "new"
    assert {hit["id"] for hit in found} == {"p1", "p2", "p3", "t0", "t1", "new"}
    shard = next((tmp_path / "index" / "shards").glob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert "differs from its checksum" in fails(capsys, "index", "--verify", index)
    assert "MODEL is required" in fails(capsys, "index", "--output", index)


def test_an_index_is_exported_and_copied_to_an_engine(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, index, table = dataset_with_metadata(tmp_path / "data"), str(tmp_path / "index"), tmp_path / "vectors.parquet"
    engine = ["--index-type", "lancedb", "--uri", str(tmp_path / "lance")]
    assert main(["index", model, data, "--output", index, *engine]) == 0
    assert main(["index", "--output", index, "--export", str(table)]) == 0
    rows = {row["id"]: row for row in pq.read_table(table).to_pylist()}
    corpus = load_corpus(index)
    assert list(rows) == corpus.ids
    np.testing.assert_allclose([row["vector"] for row in rows.values()], corpus.matrix())
    assert (rows["p2"]["kind"], rows["p2"]["metadata.year"], rows["t1"]["metadata.year"]) == ("image", 2020, None)
    (tmp_path / "data" / "corpus.jsonl").write_text('{"id": "t1", "text": "bread and tea", "year": 1}')
    assert main(["index", model, data, "--output", index, "--append", "--prune", *engine]) == 0
    printed = []
    for kind in ("auto", "flat", "scan"):
        capsys.readouterr()
        assert main(["search", model, index, "bread", "--where", "year=1", "--index-type", kind]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    assert "t1" in printed[0]
    assert LanceIndex(str(tmp_path / "lance")).ids == ["t1"]
    assert "`uri` is required" in fails(capsys, "index", model, data, "--output", index, "--index-type", "milvus")
