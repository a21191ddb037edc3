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
from benchmarks.common.files import STEPS, add_run_arguments, make_parser, say, write_result
from benchmarks.common.recipe_report import make_page, measure_images
from benchmarks.common.recipe_variants import GROUPS, RECIPE, VARIANTS
from benchmarks.common.runs import Runs
from benchmarks.common.variants import select_variants
from ciea_hf.loading import load_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

WORK = Path("runs/recipe")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing runs and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("recipe", __doc__)
    add_run_arguments(parser, seeds=5, work=WORK)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"train only these variants: {', '.join(VARIANTS)}")
    parsed = parser.parse_args(arguments)
    try:
        variants = select_variants(parsed.only, VARIANTS)
    except ValueError as error:
        parser.error(str(error))
    folder = parsed.output / "recipe" / f"{parsed.steps}-steps"
    test = load_dataset("demo", "test")
    runs = Runs(VARIANTS, parsed.steps, parsed.warm_up_steps, folder, parsed.work, test, measures=measure_images)
    runs.finish([] if parsed.report else variants, parsed.seeds, lambda: report(runs, parsed.output))
    return 0


def report(runs: Runs, output: Path) -> None:
    """Generate table and chart from the finished runs."""
    records = runs.records()
    if not records:
        say(f"no finished runs in {runs.folder}; no table was written")
        return
    rows = make_rows(records, GROUPS, VARIANTS)
    name = "recipe" if runs.steps == STEPS else f"recipe_{runs.steps}_steps"
    configuration = {"preset": RECIPE, **runs.configuration(records)}
    write_result(output, name, make_page(rows, records, name, runs.steps), draw_chart(rows), configuration, runs.test)


if __name__ == "__main__":
    sys.exit(main())
