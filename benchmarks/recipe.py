"""The recipe of this package on OpenMoji Scenes: its parts, its language models, and the paper's recipe beside it.

Every finished run is saved as a small JSON file, and the table is updated after each run. A further call trains the
runs that are missing.

Examples:
  python -m benchmarks.recipe
  python -m benchmarks.recipe --only marvel ciea --seeds 3
  python -m benchmarks.recipe --steps 1600 --only ciea
  python -m benchmarks.recipe --report
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.ablation_report import draw_chart, make_rows
from benchmarks.common.files import STEPS, write_result
from benchmarks.common.recipe_report import make_page, measure_images
from benchmarks.common.recipe_variants import GROUPS, RECIPE, VARIANTS
from benchmarks.common.variant_runs import run_variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.common.records import Record
    from benchmarks.common.runs import Runs

WORK = Path("runs/recipe")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing runs and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    return run_variants("recipe", __doc__, VARIANTS, WORK, report, arguments, measure_images)


def report(runs: Runs, records: list[Record], output: Path) -> None:
    """Generate table and chart from the finished runs."""
    rows = make_rows(records, GROUPS, VARIANTS)
    name = "recipe" if runs.steps == STEPS else f"recipe_{runs.steps}_steps"
    configuration = {"preset": RECIPE, **runs.configuration(records)}
    write_result(output, name, make_page(rows, records, name, runs.steps), draw_chart(rows), configuration, runs.test)


if __name__ == "__main__":
    sys.exit(main())
