"""A page over two tiny models, served by a process, and a browser."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.cli import main
from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns, save_retrieval_dataset
from tests.support.browser import NO_CHROMIUM, WatchedPage, chromium, launched
from tests.support.helpers import tiny_model, toy_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = '<script>alert(1)</script> <img src=x onerror="alert(2)"> {{value}} ${1 + 1} `x` & "quoted" \\ end'
LONG = " ".join(f"word{number}" for number in range(60))
MAX_PIXELS = 100_000


@dataclass(frozen=True)
class Files:
    """What is searched: a data set of images of several shapes, two models and their indexes."""

    dataset: Path
    models: tuple[str, str]
    indexes: tuple[str, str]

    @property
    def arguments(self) -> list[str]:
        return [self.models[0], self.indexes[0], "--compare", self.models[1], self.indexes[1]]


@dataclass(frozen=True)
class Server:
    """A running page.

    Attributes:
        url: Its address.
        log: File of the other machines that it has tried to reach.
    """

    url: str
    log: Path


def scenes() -> RetrievalDataset:
    """Captioned images, one of them wide, an image without a caption, and texts."""
    sizes = {"img-cat": (64, 64), "img-wide": (300, 60), "img-hostile": (48, 64), "img-bare": (64, 64)}
    captions = ["the red cat", LONG, HOSTILE, None]
    images = [toy_image(number, size=size) for number, size in enumerate(sizes.values())]
    texts = {"txt-boat": "a blue boat in the house", "txt-<b>": "bread and apple"}
    corpus = corpus_from_columns(
        [*sizes, *texts], [*captions, *texts.values()], [*images, *[None] * len(texts)],
    )  # fmt: skip
    queries = queries_from_columns(["q"], ["a red cat"])
    return RetrievalDataset(corpus, queries, {"q": {"img-cat": 1}}, name="scenes", split="test")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("app")
    save_retrieval_dataset({"test": scenes()}, folder / "data", "# Scenes")
    names = ("first", "second")
    for seed, name in enumerate(names):
        tiny_model(seed=seed, use_extractor=seed == 0).save_pretrained(folder / name)
        arguments = [str(folder / name), str(folder / "data"), "--output", str(folder / f"{name}.index")]
        assert main(["index", *arguments]) == 0
    models, indexes = (tuple(str(folder / f"{name}{end}") for name in names) for end in ("", ".index"))
    return Files(folder / "data", models, indexes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def server(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page with a small limit on images."""
    pytest.importorskip("gradio", reason="gradio is not installed here; `make test-app` has it")
    log = tmp_path_factory.mktemp("log") / "hosts.txt"
    limits = ["--max-image-pixels", str(MAX_PIXELS), "--max-image-mb", "1"]
    arguments = ["demo-app", *files.arguments, "--port", "0", *limits]
    command = [sys.executable, "-m", "tests.support.loopback_only", str(log), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        try:
            yield Server(line.split()[0], log)
        finally:
            process.terminate()
            assert process.wait(30) == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="playwright is not installed here; `make test-app` has it")
    path = chromium()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    with launched(path) as found:
        yield found


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page, opened. Afterwards no request may have left this machine, and nothing may have failed."""
    watched = WatchedPage(browser)
    watched.page.goto(server.url)
    watched.page.get_by_text("Type a text, drop an image, or both.").wait_for()
    yield watched.page
    watched.close()
    assert not server.log.exists(), server.log.read_text()
