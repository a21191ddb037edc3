"""Command line of the benchmarks that train variants over several seeds and report them in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common.files import add_run_arguments, make_parser, say
from benchmarks.common.runs import Runs
from benchmarks.common.variants import select_variants
from ciea_hf.loading import load_dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.common.records import Record
    from benchmarks.common.runs import Measures
    from benchmarks.common.variants import Variant

SEEDS = 5


def run_variants(
    name: str,
    description: str | None,
    variants: Mapping[str, Variant],
    work: Path,
    report: Callable[[Runs, list[Record], Path], None],
    arguments: Sequence[str] | None = None,
    measures: Measures | None = None,
) -> int:
    """Run the missing runs of a benchmark and write its result after each.

    Args:
        name: Name of the benchmark, and of the folder of its records.
        description: Docstring of the module, shown as the description.
        variants: Variants by name.
        work: Default folder of the trained models.
        report: Writes the result of the finished runs, given these runs, their records and the output folder.
        arguments: Command-line arguments; those of the process if None.
        measures: See [`Runs`].

    Returns:
        Exit status.
    """
    parser = make_parser(name, description)
    add_run_arguments(parser, seeds=SEEDS, work=work)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"train only these variants: {', '.join(variants)}")
    parsed = parser.parse_args(arguments)
    try:
        chosen = select_variants(parsed.only, variants)
    except ValueError as error:
        parser.error(str(error))
    folder = parsed.output / name / f"{parsed.steps}-steps"
    test = load_dataset("demo", "test")
    runs = Runs(variants, parsed.steps, parsed.warm_up_steps, folder, parsed.work, test, measures=measures)

    def write_report() -> None:
        records = runs.records()
        if records:
            report(runs, records, parsed.output)
        else:
            say(f"no finished runs in {runs.folder}; no table was written")

    runs.finish([] if parsed.report else chosen, parsed.seeds, write_report)
    return 0
