"""All commands and Python blocks of the README and the documentation run, on a tiny model in place of the demo's."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ciea_hf.cli import main
from tests.support.helpers import tiny_model, toy_image
from tests.support.processes import free_port

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = (
    'pip install ".[train,eval,search]"',
    "make demo",
    "make demo-app",
    "make test",
)  # continuous integration runs these
SHORT = ("--max-steps", "1", "--eval-steps", "1", "--batch-size", "8", "--eval-documents", "20")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of the code blocks of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder after `make demo`, with a tiny random model, and with images and CSV files of their own."""
    folder = tmp_path_factory.mktemp("docs")
    tiny_model().save_pretrained(folder / "demo" / "ciea")
    tiny_model(use_extractor=False).save_pretrained(folder / "demo" / "marvel")
    for name in ("scene.png", "other.png"):
        toy_image(size=(112, 112)).save(folder / "demo" / name)
    names = [f"{number}.png" for number in range(20)]
    (folder / "photos").mkdir()
    for number, name in enumerate(names):
        toy_image(number).save(folder / "photos" / name)
    for file, columns, rows in (
        ("captions.csv", ("file", "caption"), [(name, f"photo number {name}") for name in names]),
        ("queries.csv", ("query", "file"), [(f"where is the cat of {name}", name) for name in names]),
    ):
        with (folder / file).open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([columns, *rows])
    toy_image(7).save(folder / "bench.jpg")
    (folder / "queries.jsonl").write_text('{"text": "a bridge"}\n{"text": "in winter", "image": "bench.jpg"}\n')
    (folder / "data").mkdir()
    corpus: list[dict[str, object]] = [
        {"id": str(number), "text": f"bridge {number}", "year": 2015 + number, "site": "wiki"} for number in range(9)
    ]
    toy_image(8).save(folder / "data" / "8.png")
    corpus[8]["image"] = "8.png"
    (folder / "data" / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    return folder


def run_training(command: str, folder: Path) -> None:
    words = shlex.split(command.replace("training/train.py", str(ROOT / "training" / "train.py")))
    assert words[:2] == ["accelerate", "launch"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"]
    done = subprocess.run([*launch, *words[2:], *SHORT], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


def start_service(command: str, port: int) -> subprocess.Popen[str]:
    """Start `ciea serve ...` or `ciea demo-app ...` in the background; returns when it accepts connections."""
    arguments = [*shlex.split(command)[1:], "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "ciea_hf.cli", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert str(port) in process.stdout.readline()
    return process


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_blocks_run_in_their_order(
    page: Path,
    reader: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(reader)
    monkeypatch.setenv("CIEA_HF_CACHE", str(reader / "cache"))
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    if page.name == "app.md":
        pytest.importorskip("gradio", reason="gradio is not installed here; `make test-app` has it")
    port = free_port()
    for language, block in blocks(page):
        if language == "python":
            code = re.sub(r"127\.0\.0\.1:(8000|7860)", f"127.0.0.1:{port}", block)
            exec(compile(code, page.name, "exec"), {})  # noqa: S102 (our own page)
            assert capsys.readouterr().out
        for command in block.splitlines() if language == "bash" else ():
            if command.startswith("accelerate launch"):
                run_training(command, reader)
            elif command.startswith(("ciea serve ", "ciea demo-app ")):
                port = free_port()
                process = start_service(command, port)
                request.addfinalizer(process.wait)
                request.addfinalizer(process.terminate)
            elif command.startswith("ciea "):
                assert main(shlex.split(command, comments=True)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
            else:
                assert command in ELSEWHERE


def test_the_pages_have_something_to_run() -> None:
    found = [language for page in PAGES for language, _ in blocks(page)]
    assert found.count("bash") >= 10
    assert found.count("python") >= 6


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        assert set(re.findall(r"`make ([\w-]+)`", page.read_text(encoding="utf-8"))) <= targets


def test_links_to_files_exist() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            generated = target in ("method.svg", "cli.md", "reference.md")
            assert generated or (page.parent / target).exists(), (page.name, target)


def test_stages_and_presets_are_those_of_the_code() -> None:
    from ciea_hf.training.arguments import preset_names
    from ciea_hf.training.config import STAGES

    concepts = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", concepts, flags=re.MULTILINE) == list(STAGES)
    train = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in train for name in preset_names())


def test_the_reference_covers_real_names() -> None:
    import importlib
    import types

    source = (ROOT / "docs" / "generate.py").read_text(encoding="utf-8").replace("import mkdocs_gen_files\n", "")
    module = types.ModuleType("generate")
    exec(compile(source.rpartition("main()")[0], "generate.py", "exec"), module.__dict__)  # noqa: S102 (our own script)
    listed = {name for names in module.REFERENCE.values() for name in names}
    assert listed == {name for names in module.MODULES.values() for name in names}
    for path, names in module.MODULES.items():
        for name in names:
            assert hasattr(importlib.import_module(path), name), (path, name)
