"""What each part of CIEA brings, on the embedded benchmark, several seeds, one budget.

  python -m benchmarks.ablation                              # goes on where the last call stopped
  python -m benchmarks.ablation --only marvel ciea --seeds 3
  python -m benchmarks.ablation --report                     # draws the table from what is there, trains nothing

Every finished run leaves a small JSON file, and the table is drawn again after each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.ablation_report import draw_chart, make_page, make_rows, rows_against_ciea
from benchmarks.common.files import STEPS, add_run_arguments, make_parser, say, write_result
from benchmarks.common.runs import Runs
from benchmarks.common.variants import VARIANTS, choose
from ciea_hf.loading import load_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

WORK = Path("runs/ablation")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ablation, or go on with it; return the exit status."""
    parser = make_parser(__doc__)
    add_run_arguments(parser, seeds=5, work=WORK)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"these variants: {', '.join(VARIANTS)}")
    parsed = parser.parse_args(arguments)
    try:
        variants = choose(parsed.only)
    except ValueError as error:
        parser.error(str(error))
    test = load_dataset("demo", "test")
    folder = parsed.output / "ablation" / f"{parsed.steps}-steps"
    runs = Runs(VARIANTS, parsed.steps, parsed.warm_up_steps, folder, parsed.work, test)
    runs.finish([] if parsed.report else variants, parsed.seeds, lambda: report(runs, parsed.output))
    return 0


def report(runs: Runs, output: Path) -> None:
    """Draw the table and the chart from whatever is there."""
    records = runs.records()
    if not records:
        say(f"no finished run in {runs.folder}: there is no table to draw")
        return
    rows = make_rows(records)
    name = "ablation" if runs.steps == STEPS else f"ablation_{runs.steps}_steps"
    page = make_page(rows, rows_against_ciea(records), name, runs.steps, len(records[0].ranks))
    write_result(output, name, page, draw_chart(rows), runs.configuration(records), runs.test)


if __name__ == "__main__":
    sys.exit(main())
