"""Cost of a training step with the recipe of this package, relative to the paper's recipe.

Both recipes train CIEA on the embedded benchmark for a few steps, in turn and several times, in the same conditions.

Examples:
  python -m benchmarks.step_cost
  python -m benchmarks.step_cost --rounds 1 --steps 5
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.common.files import make_parser, say, write_page
from ciea_hf.demo.launching import launch_training
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "step_cost.md"
RECIPES = {"paper's recipe": "demo_paper", "recipe of this package": "demo"}
STAGE = "in_batch"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both recipes and write the result page.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("step_cost", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of times each recipe is trained (default: 3)")
    parser.add_argument("--steps", type=int, default=20, help="steps of each training (default: 20)")
    parsed = parser.parse_args(arguments)
    seconds: dict[str, list[float]] = {title: [] for title in RECIPES}
    with tempfile.TemporaryDirectory() as work:
        for number in range(parsed.rounds):
            for title, preset in RECIPES.items():
                folder = Path(work) / f"{preset}-{number}"
                seconds[title].append(measure(folder, preset, parsed.steps))
                say(f"round {number + 1}, {title}: {seconds[title][-1]:.3f} s per step")
    write_page(parsed.output / NAME, page(seconds, parsed.steps))
    return 0


def measure(folder: Path, preset: str, steps: int) -> float:
    """Train for a few steps and return the mean time of a step in seconds.

    Args:
        folder: Output folder of the training.
        preset: Preset of the recipe.
        steps: Number of steps.
    """
    budget = ("--max-steps", str(steps), "--warmup-steps", "0", "--dev-split", "none")
    launch_training(folder, ("--stage", STAGE, *budget, "--trackers="), preset)
    result = json.loads((folder / STAGE / "result.json").read_text(encoding="utf-8"))
    return float(result["seconds"]) / steps


def page(seconds: Mapping[str, Sequence[float]], steps: int) -> str:
    """Generate the result page.

    Args:
        seconds: Seconds per step of each round, by recipe; the first recipe is the baseline.
        steps: Steps of each training.

    Returns:
        The page in Markdown.
    """
    baseline = next(iter(seconds.values()))
    lines = [["recipe", "seconds per step", "relative"]]
    for title, values in seconds.items():
        ratios = [value / other for value, other in zip(values, baseline, strict=True)]
        lines.append([title, f"{statistics.median(values):.3f}", f"{statistics.median(ratios):.2f}"])
    processor = platform.processor() or platform.machine()
    return f"""# Cost of a training step

CIEA on OpenMoji Scenes with miniature towers, cached vision features, 64 queries per step. Both recipes were trained
in turn, {len(baseline)} times for {steps} steps. The table shows the median over rounds of the mean time of a step, and
the median ratio to the paper's recipe in the same round. {processor}, {os.cpu_count()} cores, torch
{torch.__version__}.

{text_table(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
