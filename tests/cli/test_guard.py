"""Errors that a user's files, disk or permissions cause: one line that names the file, and nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from ciea_hf.cli import main
from ciea_hf.reporting import LONGEST, error_line
from ciea_hf.training.train import main as train
from tests.support.commands import fails
from tests.support.helpers import tiny_model, tiny_processor, toy_image
from tests.support.toy_training import save_backbones

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("cache")

FILES = {  # commands that write a file
    "encode MODEL --text a --output OUT.safetensors": ".safetensors",
    "encode MODEL --text a --output OUT.npy": ".npy",
    "evaluate MODEL DATA --output OUT": "",
    "evaluate MODEL DATA --run-file OUT": "",
    "search MODEL DATA cat --output OUT": "",
    "search MODEL DATA cat --contact-sheet OUT.png": ".png",
    "compare RUN RUN --qrels DATA --output OUT": "",
    "index --output INDEX --export OUT": "",
    "data check DATA --output OUT": "",
}
FOLDERS = (  # commands that write a folder
    "evaluate MODEL DATA --embeddings OUT",
    "index MODEL DATA --output OUT",
    "mine MODEL DATA --split test --output OUT",
    "mteb MODEL --dataset DATA --output OUT",
    "mteb MODEL --dataset DATA --predictions OUT",
    "push MODEL org/name --dry-run --output OUT",
    "data convert DATA --output OUT",
    "data check DATA --fix OUT",
)
MODELS = (  # commands that read a model
    "encode MODEL --text a --output OUT.npy",
    "evaluate MODEL DATA",
    "search MODEL DATA cat",
    "search MODEL INDEX cat",
    "index MODEL DATA --output OUT",
    "mine MODEL DATA --split test --output OUT",
    "mteb MODEL --dataset DATA",
    "serve MODEL --port 0",
    "push MODEL org/name --dry-run --output OUT",
)
DATASETS = (  # commands that read a data set
    "evaluate MODEL DATA",
    "search MODEL DATA cat",
    "index MODEL DATA --output OUT",
    "mine MODEL DATA --output OUT",
    "mteb MODEL --dataset DATA",
    "compare RUN RUN --qrels DATA",
    "data check DATA",
    "data convert DATA --output OUT",
)


@pytest.fixture(scope="module")
def places(model: str, dataset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files and folders that the placeholders of a command refer to."""
    folder = tmp_path_factory.mktemp("places")
    places = {"MODEL": Path(model), "DATA": Path(dataset), "INDEX": folder / "index", "RUN": folder / "a.run"}
    assert main(["index", model, dataset, "--output", str(places["INDEX"])]) == 0
    assert main(["evaluate", model, dataset, "--run-file", str(places["RUN"])]) == 0
    assert main(["mteb", model, "--dataset", dataset, "--output", str(folder / "mteb")]) == 0  # imports its libraries
    return places


def words(command: str, places: dict[str, Path], out: Path) -> list[str]:
    return [str(out) if word.startswith("OUT") else str(places.get(word, word)) for word in command.split()]


@contextmanager
def full_disk(size: int = 0) -> Iterator[None]:
    """Let this process write files of a limited size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def another_user() -> Iterator[None]:
    """Run as a user whom permissions concern: root obeys none."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("command", FILES)
def test_a_full_disk_names_the_file(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out{FILES[command]}"
    if "search" in command:
        main(["search", str(places["MODEL"]), str(places["DATA"]), "cat"])  # keeps the embeddings
        capsys.readouterr()
    with full_disk():
        error = fails(capsys, *words(command, places, out))
    assert error.startswith(f"ciea: error: {out}: ") or f"'{out}'" in error
    assert "File too large" in error
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]


@pytest.mark.parametrize("command", FOLDERS)
def test_a_full_disk_names_the_folder(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with full_disk():
        assert main(words(command, places, out)) == 2
    error = capsys.readouterr().err
    assert str(out) in error.splitlines()[-1]
    assert "File too large" in error
    assert not [path for path in out.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("command", FILES)
def test_a_folder_in_the_place_of_a_file_is_named(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out{FILES[command]}"
    out.mkdir()
    assert f"must be a file; {out} is a folder" in fails(capsys, *words(command, places, out))
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / out.name
    error = fails(capsys, *words(command, places, inside))
    assert f"{inside} cannot be written: {tmp_path / 'file'}: exists and is not a folder" in error


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_named(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("keep")
    assert str(tmp_path / "out") in fails(capsys, *words(command, places, tmp_path / "out"))
    assert str(tmp_path / "out") in fails(capsys, *words(command, places, tmp_path / "out" / "inside"))
    assert (tmp_path / "out").read_text() == "keep"


@pytest.mark.parametrize("command", ["data convert DATA --output OUT", "index MODEL DATA --output OUT"])
def test_a_folder_of_other_things_is_not_filled(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    assert "choose a new folder" in fails(capsys, *words(command, places, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def remove_processor(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def replace_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


@pytest.mark.parametrize("damage", [truncate, spoil_tokenizer, remove_processor, replace_config])
def test_a_damaged_model_is_named_by_every_command(
    damage: Callable[[Path], None], places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(places["MODEL"], folder)
    damage(folder)
    for command in MODELS:
        assert str(folder) in fails(capsys, *words(command, {**places, "MODEL": folder}, tmp_path / "out.npy"))


@pytest.mark.parametrize("command", DATASETS)
def test_what_is_no_data_set_is_named(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.png").write_bytes(b"not an image")
    for name in ("empty", "image.png", "missing"):
        found = {**places, "DATA": tmp_path / name}
        assert str(tmp_path / name) in fails(capsys, *words(command, found, tmp_path / "out"))


@pytest.mark.parametrize(
    "command",
    [
        "search MODEL INDEX cat",
        "index --verify INDEX",
        "index --output INDEX --export OUT",
        "serve MODEL --index INDEX --port 0",
    ],
)
def test_a_damaged_index_is_named(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "index"
    shutil.copytree(places["INDEX"], folder)
    next((folder / "shards").glob("*.arrow")).write_bytes(b"")
    assert str(folder / "shards") in fails(capsys, *words(command, {**places, "INDEX": folder}, tmp_path / "out"))
    (folder / "manifest.json").write_text("{")
    assert str(folder) in fails(capsys, *words(command, {**places, "INDEX": folder}, tmp_path / "out"))


def test_files_that_may_not_be_read_are_named(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"model": "model.safetensors", "index": "manifest.json", "a.run": "", "lines.txt": "", "key": ""}
    commands = {
        "model": "encode {} --text a --output {out}.npy",
        "index": "search {model} {} cat",
        "a.run": "compare {} {} --qrels {}",
        "lines.txt": "encode {model} {} --output {out}.npy",
        "key": "serve {model} --api-key-file {} --port 0",
    }
    with tempfile.TemporaryDirectory() as public:  # pytest's own folders are private
        folder = Path(public)
        shutil.copytree(places["MODEL"], folder / "model")
        shutil.copytree(places["INDEX"], folder / "index")
        for name in ("a.run", "lines.txt", "key"):
            (folder / name).write_text("a")
        (folder / "out").mkdir()
        subprocess.run(["chmod", "-R", "a+rwX", public], check=True)
        for name, file in names.items():
            path = folder / name / file
            path.chmod(0)
            command = commands[name].format(*[folder / name] * 3, model=folder / "model", out=folder / "out" / "x")
            with another_user():
                error = fails(capsys, *command.split())
            path.chmod(0o644)
            assert str(path) in error
            assert "Permission denied" in error


def test_queries_and_inputs_name_file_and_line(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_image().save(tmp_path / "a.png")
    for content, message in (
        ("[" * 100_000, "invalid JSON: maximum recursion depth"),
        ('{"text": "a", "id": 1' + "0" * 5000 + "}", "invalid JSON: Exceeds the limit"),
        ('{"text": "\\ud83d"}', "a text contains a lone surrogate"),
        ('{"text": "a", "id": {"b": 1}}', "'id' must be a text or a number"),
        ('{"image": "a\\u0000.png"}', "not found"),
        ('{"image": "a.png", "caption": ["b"]}', "the text must be a text; got ['b']"),
        ('{"text": " "}', 'must be an object with "text" or "image"'),
    ):
        (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n' + content)
        for command in ("encode MODEL IN --output OUT.npy", "search MODEL INDEX --queries IN"):
            error = fails(capsys, *words(command, {**places, "IN": tmp_path / "in.jsonl"}, tmp_path / "o.npy"))
            assert f"{tmp_path / 'in.jsonl'}:2: " in error
            assert message in error
    (tmp_path / "in.jsonl").write_text('{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}\n')
    encode = ["encode", str(places["MODEL"]), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "o.npy")]
    assert f"the id 'x' occurs twice in {tmp_path / 'in.jsonl'}" in fails(capsys, *encode)
    (tmp_path / "in.jsonl").write_text("\n")
    assert f"{tmp_path / 'in.jsonl'} contains no inputs" in fails(capsys, *encode)
    assert "document 'text-0': character 1" in fails(capsys, *encode[:2], "--text", "a\udcfcb", *encode[3:])


def test_a_caption_under_its_own_name_is_read(places: dict[str, Path], tmp_path: Path) -> None:
    toy_image().save(tmp_path / "a.png")
    written = []
    for number, key in enumerate(("text", "caption", "contents")):
        (tmp_path / "in.jsonl").write_text(f'{{"image": "a.png", "{key}": "a red cat"}}\n')
        out = tmp_path / f"{number}.npy"
        assert main(["encode", str(places["MODEL"]), str(tmp_path / "in.jsonl"), "--output", str(out)]) == 0
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]


def test_engines_that_cannot_be_reached_are_named(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    command = ["index", str(places["MODEL"]), str(places["DATA"]), "--output", str(tmp_path / "index")]
    uri = str(tmp_path / "file")
    assert uri in fails(capsys, *command, "--index-type", "lancedb", "--uri", uri)
    assert "no Ray cluster answers at 127.0.0.1:9" in fails(
        capsys, *command[:-1], str(tmp_path / "other"), "--engine", "ray", "--address", "127.0.0.1:9"
    )


def test_training_reports_errors_in_one_line(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    command = ["--dataset", str(toy / "data"), "--model", str(toy / "start"), "--output-dir", str(tmp_path / "file")]
    assert train(command) == 2
    error = capsys.readouterr().err
    assert f"train.py: error: {tmp_path / 'file'}: exists and is not a folder\n" in error
    with pytest.raises(FileExistsError):
        train([*command, "--debug"])


def test_faults_of_the_package_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise KeyError("fault")

    monkeypatch.setattr("ciea_hf.loading.load_dataset", fault)
    with pytest.raises(KeyError, match="fault"):
        main(["evaluate", "m", "d"])


def test_an_error_is_one_line_that_a_terminal_can_show() -> None:
    assert error_line(ValueError("a:\n  b\x1b[31m\n")) == "a: b\\x1b[31m"
    assert error_line(ValueError()) == "ValueError"
    assert error_line(FileNotFoundError(2, "No such file or directory", "x\ny")) == "x y: No such file or directory"
    assert error_line(ValueError("a" * 9999)).endswith("a ...")
    assert len(error_line(ValueError("a" * 9999))) == LONGEST + 4


def test_converting_onto_a_full_disk_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": tiny_model(use_extractor=False).state_dict()}, tmp_path / "a.pt")
    save_backbones(tmp_path)
    out = tmp_path / "out"
    words = ["convert", str(tmp_path / "a.pt"), "--output", str(out)]
    words += ["--vision-config", str(tmp_path / "vision_model"), "--text-config", str(tmp_path / "text_model")]
    for number, name in enumerate(("image_token_id", "image_start_token_id", "image_end_token_id")):
        words += ["--set", f"{name}={tiny_processor().image_token_id + number}"]
    assert main(words) == 0
    shutil.rmtree(out)
    capsys.readouterr()
    with full_disk(60_000):
        assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(out) in error
    assert "File too large" in error
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("out", ".out"))]
