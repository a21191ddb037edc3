"""`ciea search` and `ciea index`."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from ciea_hf.cli import main
from tests.commands import fails
from tests.helpers import tiny_model

pytestmark = pytest.mark.usefixtures("cache")


def test_search_lists_hits_and_marks_the_known_ones(model, dataset, tmp_path, capsys, cache):
    sheet, hits = tmp_path / "hits.png", tmp_path / "hits.json"
    command = ["search", model, dataset, "a red cat", "--query-id", "q-pic", "--top-k", "6"]
    assert main([*command, "--images", str(sheet), "--json", str(hits)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(hits.read_text())
    assert [row["query"] for row in content] == ["a red cat", "red cup"]
    assert [hit["rank"] for hit in content[0]["hits"]] == [1, 2, 3, 4, 5, 6]
    assert re.findall(r"^\*.*(img-red|other)", printed, flags=re.MULTILINE) == ["img-red"]
    assert Image.open(sheet).width > 6 * 200
    assert len(list((cache / "embeddings").iterdir())) == 1
    assert main([*command]) == 0
    assert capsys.readouterr().out.replace("\n\n", "\n") in printed.replace("\n\n", "\n")


def test_queries_may_stand_anywhere(model, dataset, capsys):
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


def test_search_in_an_index_folder(model, dataset, tmp_path, capsys):
    index = tmp_path / "index"
    assert main(["index", model, dataset, "--output", str(index), "--dtype", "float16", "--shard-size", "4"]) == 0
    assert "6 documents, complete" in capsys.readouterr().out
    assert main(["search", model, str(index), "a red cat", "--top-k", "2", "--images", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").exists()
    shared = ["index", model, dataset, "--output", str(tmp_path / "parts"), "--shard-size", "1"]
    assert main([*shared, "--part", "2/2"]) == 0
    assert "3 shards are still missing" in capsys.readouterr().out
    assert "3 of 6 shards are missing" in fails(capsys, "search", model, str(tmp_path / "parts"), "a red cat")
    assert main([*shared, "--part", "1/2"]) == 0
    assert "complete" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*shared, "--part", "3/2"])
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    capsys.readouterr()
    assert "another model" in fails(capsys, "search", str(other), str(index), "a red cat")
