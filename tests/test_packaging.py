"""What `setup.cfg` says is what the checkout holds: a package or data file left out would be missing once installed."""

from __future__ import annotations

import configparser
from pathlib import Path

import ciea_hf

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


def test_constraints_name_what_is_required() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    section = settings()
    required = section["options"]["install_requires"] + "".join(section["options.extras_require"].values())
    names = {line.split(">=")[0].strip().lower().replace("_", "-") for line in required.splitlines() if ">=" in line}
    assert names <= pinned
