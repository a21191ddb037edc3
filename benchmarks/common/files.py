"""Where results are written: a Markdown page, a picture and the configuration beside each other."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ciea_hf.training.arguments import load_preset
from ciea_hf.training.run.record import run_record
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from ciea_hf.data import RetrievalDataset

RESULTS = Path("benchmarks/results")
TRAINED = Path("demo/runs")  # what `make demo` leaves
BEST = Path("in_batch/best")
MARVEL, CIEA = (str(TRAINED / name / BEST) for name in ("marvel", "ciea"))
DPI = 120
STEPS = 400


def say(text: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser that shows a script's docstring and knows `--output`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"where results are written (default: {RESULTS})")
    return parser


def add_run_arguments(parser: argparse.ArgumentParser, seeds: int, work: Path) -> None:
    """Add what every benchmark takes that trains variants over seeds: their number, steps and folder."""
    parser.add_argument("--seeds", type=int, default=seeds, help=f"runs of each variant (default: {seeds})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of each training (default: {STEPS})")
    parser.add_argument("--warm-up-steps", type=int, help="steps of each warm-up (default: the preset's)")
    parser.add_argument("--report", action="store_true", help="train nothing, draw the table from what is there")
    parser.add_argument("--work", type=Path, default=work, help=f"where models are trained (default: {work})")


def write_result(
    folder: Path, name: str, page: str, figure: Figure, configuration: Mapping[str, Any], data: RetrievalDataset
) -> None:
    """Write a Markdown page, its picture and its configuration beside each other: `NAME.md`, `.png`, `.yaml`.

    Args:
        folder: Where to.
        name: Of the files.
        page: The page.
        figure: The picture.
        configuration: What the result depends on; versions, git revision and the data's fingerprint are added.
        data: What the result was measured on.
    """
    record = run_record(load_preset("demo"), {data.split: data.fingerprint})
    content = {**configuration, **{key: record[key] for key in ("versions", "git_revision", "data")}}
    with atomic_write(folder / f"{name}.yaml") as path:
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    with atomic_write(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=DPI, bbox_inches="tight")
    with atomic_write(folder / f"{name}.md") as path:
        path.write_text(page.rstrip("\n") + "\n", encoding="utf-8")
    say(f"written: {folder / name}.md, .png and .yaml")


def model_titles(folders: Sequence[str]) -> list[str]:
    """Name trained models by the runs that left them: `demo/runs/marvel/in_batch/best` is `marvel`.

    Where two would be of one name, all keep their folders.
    """
    paths = [Path(folder) for folder in folders]
    short = [
        path.parents[1].name if path.name == BEST.name and len(path.parts) > len(BEST.parts) else path.name
        for path in paths
    ]
    return short if len(set(short)) == len(folders) else list(folders)


def require_models(folders: list[str]) -> None:
    """Stop with a plain word if a trained model is not there.

    Raises:
        SystemExit: If a folder is missing.
    """
    missing = [folder for folder in folders if not (Path(folder) / "config.json").is_file()]
    if missing:
        raise SystemExit(
            f"there is no model at {', '.join(missing)}: run `make demo` first, which trains those that are compared "
            "by default, or name folders of trained models"
        )
