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
from benchmarks.common.files import STEPS, write_result
from benchmarks.common.variant_runs import run_variants
from benchmarks.common.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.common.records import Record
    from benchmarks.common.runs import Runs

WORK = Path("runs/ablation")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing runs of the ablation and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    return run_variants("ablation", __doc__, VARIANTS, WORK, report, arguments)


def report(runs: Runs, records: list[Record], output: Path) -> None:
    """Generate table and chart from the finished runs."""
    rows = make_rows(records)
    name = "ablation" if runs.steps == STEPS else f"ablation_{runs.steps}_steps"
    page = make_page(rows, rows_against_ciea(records), name, runs.steps, len(records[0].ranks))
    write_result(output, name, page, draw_chart(rows), runs.configuration(records), runs.test)


if __name__ == "__main__":
    sys.exit(main())
