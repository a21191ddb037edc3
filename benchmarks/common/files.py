"""Command-line arguments of the benchmarks, and their result files: a Markdown page, a chart and the configuration."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ciea_hf.files import atomic_write
from ciea_hf.training.arguments import load_preset
from ciea_hf.training.run.record import run_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from ciea_hf.data import RetrievalDataset

RESULTS = Path("benchmarks/results")
TRAINED = Path("demo/runs")  # output of `make demo`
BEST = Path("in_batch/best")
MARVEL, CIEA = (str(TRAINED / name / BEST) for name in ("marvel", "ciea"))
DPI = 120
STEPS = 400


def say(text: str) -> None:
    """Write a line to standard output and flush it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Create the parser of a benchmark, with the option `--output`.

    Args:
        name: Name of the benchmark's module.
        description: Docstring of the module, shown as the description.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"folder of the results (default: {RESULTS})")
    return parser


def add_run_arguments(parser: argparse.ArgumentParser, seeds: int, work: Path, budgets: str | None = None) -> None:
    """Add the arguments of benchmarks that train variants over several seeds.

    Args:
        parser: The parser.
        seeds: Default number of seeds.
        work: Default folder of the trained models.
        budgets: Description of the default numbers of steps, if they depend on the variant; `--steps` is None without
            the option then.
    """
    steps = STEPS if budgets is None else None
    parser.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds per variant (default: {seeds})")
    parser.add_argument(
        "--steps", type=int, default=steps, help=f"steps of each training (default: {budgets or STEPS})"
    )
    parser.add_argument("--warm-up-steps", type=int, help="steps of each warm-up (default: those of the preset)")
    parser.add_argument("--report", action="store_true", help="write the table of the finished runs without training")
    parser.add_argument("--work", type=Path, default=work, help=f"folder of the trained models (default: {work})")


def write_result(
    folder: Path, name: str, page: str, figure: Figure, configuration: Mapping[str, Any], data: RetrievalDataset
) -> None:
    """Write the files of a result: `NAME.md`, `NAME.png` and `NAME.yaml`.

    Args:
        folder: Folder of the results.
        name: Name of the files.
        page: Result page in Markdown.
        figure: Chart.
        configuration: Conditions of the result; versions, git revision and the fingerprint of the data are added.
        data: Evaluation data.
    """
    record = run_record(load_preset("demo_paper"), {data.split: data.fingerprint})
    content = {**configuration, **{key: record[key] for key in ("versions", "git_revision", "data")}}
    with atomic_write(folder / f"{name}.yaml") as path:
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    with atomic_write(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=DPI, bbox_inches="tight")
    with atomic_write(folder / f"{name}.md") as path:
        path.write_text(page.rstrip("\n") + "\n", encoding="utf-8")
    say(f"written: {folder / name}.md, .png and .yaml")


def write_page(path: Path, page: str) -> None:
    """Write a Markdown page, and show it on standard output.

    Args:
        path: File of the page.
        page: The page.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"\n{page}\nwritten: {path}")


def model_titles(folders: Sequence[str]) -> list[str]:
    """Return short titles of trained models: `marvel` for `demo/runs/marvel/in_batch/best`.

    Args:
        folders: Folders of the models.

    Returns:
        The titles, or the folders if two titles would be equal.
    """
    titles = []
    for path in map(Path, folders):
        is_best = path.name == BEST.name and len(path.parts) > len(BEST.parts)
        titles.append(path.parents[1].name if is_best else path.name)
    return titles if len(set(titles)) == len(folders) else list(folders)


def require_models(folders: Sequence[str]) -> None:
    """Check that the trained models exist.

    Args:
        folders: Folders of the models.

    Raises:
        SystemExit: If a model is missing.
    """
    missing = [folder for folder in folders if not (Path(folder) / "config.json").is_file()]
    if missing:
        raise SystemExit(
            f"model not found: {', '.join(missing)}; run `make demo` to train the default models, or pass folders of "
            "trained models"
        )
