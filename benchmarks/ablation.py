"""Ablation of CIEA: the effect of its components on OpenMoji Scenes, over several seeds, with equal training budget.

Every finished run is saved as a small JSON file, and the table is updated after each run. A further call trains the
runs that are missing.

Examples:
  python -m benchmarks.ablation
  python -m benchmarks.ablation --only marvel ciea --seeds 3
  python -m benchmarks.ablation --report
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.ablation_report import draw_chart, make_page, make_rows, rows_against_ciea
from benchmarks.common.files import STEPS, add_run_arguments, make_parser, say, write_result
from benchmarks.common.runs import Runs
from benchmarks.common.variants import VARIANTS, select_variants
from ciea_hf.loading import load_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

WORK = Path("runs/ablation")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing runs of the ablation and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("ablation", __doc__)
    add_run_arguments(parser, seeds=5, work=WORK)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"train only these variants: {', '.join(VARIANTS)}")
    parsed = parser.parse_args(arguments)
    try:
        variants = select_variants(parsed.only)
    except ValueError as error:
        parser.error(str(error))
    test = load_dataset("demo", "test")
    folder = parsed.output / "ablation" / f"{parsed.steps}-steps"
    runs = Runs(VARIANTS, parsed.steps, parsed.warm_up_steps, folder, parsed.work, test)
    runs.finish([] if parsed.report else variants, parsed.seeds, lambda: report(runs, parsed.output))
    return 0


def report(runs: Runs, output: Path) -> None:
    """Generate table and chart from the finished runs."""
    records = runs.records()
    if not records:
        say(f"no finished runs in {runs.folder}; no table was written")
        return
    rows = make_rows(records)
    name = "ablation" if runs.steps == STEPS else f"ablation_{runs.steps}_steps"
    page = make_page(rows, rows_against_ciea(records), name, runs.steps, len(records[0].ranks))
    write_result(output, name, page, draw_chart(rows), runs.configuration(records), runs.test)


if __name__ == "__main__":
    sys.exit(main())
