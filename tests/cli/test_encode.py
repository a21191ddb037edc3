from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from ciea_hf import CIEAModel
from ciea_hf.cli import main
from tests.support.commands import fails
from tests.support.helpers import text_config, tiny_model, toy_image, vision_config


def test_encode_texts_images_and_lines(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_image(1).save(tmp_path / "one.png")
    lines = [{"id": "x", "text": "a red cat", "image": "one.png"}, {"text": "the house"}, {"image": "one.png"}]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "docs.txt").write_text("a red cat\n\nthe house\n")
    inputs = [str(tmp_path / name) for name in ("docs.jsonl", "docs.txt", "one.png")]
    output = tmp_path / "all.safetensors"
    assert main(["encode", model, *inputs, "--text", "a dog", "--output", str(output)]) == 0
    assert "7 x 32" in capsys.readouterr().out
    with safe_open(output, "np") as file:
        found, names = file.get_tensor("embeddings"), json.loads(file.metadata()["ids"])
    assert names[:2] == ["x", "docs.jsonl:2"]
    assert names[3:5] == ["docs.txt:1", "docs.txt:3"]
    own = CIEAModel.from_pretrained(model)
    expected = own.encode_document([{"text": "a red cat", "image": toy_image(1)}, "the house", toy_image(1)])
    np.testing.assert_allclose(found[:3], expected, atol=1e-5)
    np.testing.assert_allclose(found[5], expected[2], atol=1e-5)
    folder = tmp_path / "folder.npy"
    assert main(["encode", model, str(tmp_path), "--normalize", "--truncate-dim", "8", "--output", str(folder)]) == 0
    assert np.load(folder).shape == (1, 8)
    assert np.linalg.norm(np.load(folder)) == pytest.approx(1, abs=1e-5)


def test_encode_errors_name_the_place(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"image": "gone.png"}\n')
    (tmp_path / "worse.jsonl").write_text('{"text": \n')
    output = ["--output", str(tmp_path / "o.npy")]
    assert "bad.jsonl:2: image" in fails(capsys, "encode", model, str(tmp_path / "bad.jsonl"), *output)
    assert "worse.jsonl:1: invalid JSON" in fails(capsys, "encode", model, str(tmp_path / "worse.jsonl"), *output)
    assert "nowhere not found" in fails(capsys, "encode", model, "nowhere", *output)
    assert "must end in .npy" in fails(capsys, "encode", model, "--text", "a", "--output", "o.csv")
    assert "nothing to encode" in fails(capsys, "encode", model, *output)


def test_convert_makes_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marvel = tiny_model(use_extractor=False)
    towers = {"vision": vision_config(), "text": text_config()}
    for name, config in towers.items():
        config.save_pretrained(tmp_path / name)
    marvel.processor.image_processor.save_pretrained(tmp_path / "vision")
    marvel.processor.tokenizer.save_pretrained(tmp_path / "text")
    theirs = {"vision_model.": "clip_model.vision_model.", "text_model.": "t5_model."}
    state = {re.sub("|".join(theirs), lambda m: theirs[m[0]], k, count=1): v for k, v in marvel.state_dict().items()}
    torch.save({"epoch": 1, "model": state}, tmp_path / "best.pt")
    command = ["convert", str(tmp_path / "best.pt"), "--output", str(tmp_path / "out")]
    command += ["--vision-config", str(tmp_path / "vision"), "--text-config", str(tmp_path / "text")]
    assert "--set image_token_id=" in fails(capsys, *command)
    ids = ("image_token_id", "image_start_token_id", "image_end_token_id")
    chosen = [f"--set={name}={getattr(marvel.config, name)}" for name in ids]
    assert main([*command, *chosen]) == 0
    assert "MARVEL" in capsys.readouterr().out
    again = CIEAModel.from_pretrained(tmp_path / "out")
    document = [{"text": "a red cat", "image": toy_image(1)}]
    np.testing.assert_allclose(again.encode(document), marvel.encode(document), atol=1e-6)


def test_a_model_of_sentence_transformers_takes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CIEA followed by other modules is loaded with them, and images are passed by path."""
    toy_image(1).save(tmp_path / "one.png")
    (tmp_path / "docs.JSONL").write_bytes(b'\xef\xbb\xbf{"text": "a cat", "image": "one.png"}\n')
    tiny_model().save_pretrained(tmp_path / "ciea")
    whole = SentenceTransformer(str(tmp_path / "ciea"))
    whole.append(modules.Dense(32, 8))
    whole.save_pretrained(str(tmp_path / "whole"))
    inputs = [str(tmp_path / name) for name in ("docs.JSONL", "one.png")]
    assert main(["encode", str(tmp_path / "whole"), *inputs, "--output", str(tmp_path / "o.npy")]) == 0
    assert "2 x 8" in capsys.readouterr().out
    image = str(tmp_path / "one.png")
    expected = [whole.encode_document(item) for item in ({"text": "a cat", "image": image}, image)]
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), expected, atol=1e-5)


def test_lines_that_cannot_be_read_are_named(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "o.npy")]
    for name, content, message in (
        ("a.jsonl", b'{"image": 7}', "a.jsonl:1: 'image' must be a string; got 7"),
        ("b.txt", b"fine\ncaf\xe9\n", "b.txt:2: the line is not UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        assert message in fails(capsys, "encode", model, str(tmp_path / name), *output)
    assert "--output: " in fails(capsys, "encode", model, "--text", "a", "--output", "/proc/none/o.npy")


def test_texts_stay_texts_if_an_image_has_their_name(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("owl.png\n")
    Path("docs.jsonl").write_text('{"text": "owl.png"}\n')
    command = ["encode", model, "lines.txt", "docs.jsonl", "--text", "owl.png", "--output", "o.npy"]
    assert main(command) == 0
    before = np.load("o.npy")
    toy_image().save("owl.png")
    assert main(command) == 0
    np.testing.assert_allclose(np.load("o.npy"), before, atol=1e-6)
