"""The record of a run: configuration, versions, git revision and data fingerprints, so that it can be repeated."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.training.arguments import config_as_dict

if TYPE_CHECKING:
    from ciea_hf.training.config import TrainingConfig

RECORDED_PACKAGES = (
    "ciea-hf",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "tokenizers",
    "numpy",
    "pillow",
    "peft",
)


def run_record(config: TrainingConfig, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Describe a run so that it can be repeated.

    Args:
        config: Resolved configuration.
        fingerprints: Fingerprints of the data by split.

    Returns:
        Configuration, versions, git revision, seed and data fingerprints.
    """
    return {
        "config": config_as_dict(config),
        "versions": {"python": platform.python_version()} | _versions(),
        "git_revision": _git_revision(),
        "seed": config.seed,
        "data": fingerprints,
        "command": sys.argv,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """Return the git revision of this file's checkout, with `+changes` if it is dirty; `None` outside of a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
