"""Check, convert and build retrieval data.

ciea data check data/webqa                    # exit status 0: training can run; 1: it cannot
ciea data check data/webqa --fix data/clean   # and write a copy without the faults
ciea data convert data/webqa data/own         # any format to our own: parquet, ready for push_to_hub
ciea data build openclipart data/openclipart --source unpacked
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ciea_hf.data.check_result import CheckResult

HELP = "check, convert and build data sets"
PATH_HELP = "folder, file or Hub id of a data set in any known format"
CANNOT_TRAIN = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    commands = parser.add_subparsers(title="what to do", metavar="ACTION", dest="action", required=True)
    check = commands.add_parser("check", help="read everything once and report what is wrong")
    check.add_argument("path", metavar="PATH", help=PATH_HELP)
    check.add_argument("--fix", metavar="OUT", type=Path, help="write a copy without the faults, in our own form")
    check.add_argument("--limit", type=common.positive, default=10, help="faults shown of each kind (default: 10)")
    check.add_argument("--output", type=Path, metavar="JSON", help="write counts and faults here")
    check.add_argument("--workers", type=int, default=2, help="threads that decode images (default: 2)")
    convert = commands.add_parser("convert", help="write a data set in our own form")
    convert.add_argument("path", metavar="PATH", help=PATH_HELP)
    convert.add_argument("output", metavar="OUT", type=Path, help="new folder")
    for command in (check, convert):
        command.add_argument("--format", default="auto", help="format of the data set (default: found out)")
        command.add_argument("--splits", nargs="+", metavar="SPLIT", help="only these (default: all)")
    build = commands.add_parser("build", help="make a data set of material that is at hand")
    build.add_argument("name", choices=("openclipart",), help="the data set")
    build.add_argument("output", metavar="OUT", type=Path, help="new folder")
    build.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="where Debian's openclipart-svg and openclipart-png are unpacked (dpkg -x) or installed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for."""
    action = {"check": _check, "convert": _convert, "build": _build}[arguments.action]
    return action(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from ciea_hf.data.check_result import TRAIN, IssueCollector
    from ciea_hf.data.checking import Checker
    from ciea_hf.data.loading import open_reader

    if arguments.fix:
        _refuse_existing(arguments.fix)
    source = open_reader(arguments.path, arguments.format, IssueCollector(Path(arguments.path)))
    result = Checker(source, arguments.workers, progress=sys.stderr.isatty()).run(arguments.splits)
    common.write(_report(result, arguments.limit))
    if arguments.output:
        common.write_json(_as_json(result), arguments.output)
    if arguments.fix:
        from ciea_hf.data.cleaning import write_cleaned

        counts = write_cleaned(source, result, arguments.fix)
        common.write(f"\nwritten without the faults: {arguments.fix} ({_counted(counts)})")
        if counts.get(TRAIN) == 0 and not result.blocking_errors:
            common.write("the copy has no query to train on: all of them occur in later splits")
    for obstacle in result.blocking_errors:
        common.write(f"training cannot run: {obstacle}")
    if not result.blocking_errors:
        common.write("training can run")
    return CANNOT_TRAIN if result.blocking_errors else 0


def _convert(arguments: argparse.Namespace) -> int:
    from ciea_hf.data.cleaning import convert_dataset
    from ciea_hf.data.loading import open_reader

    _refuse_existing(arguments.output)
    counts = convert_dataset(open_reader(arguments.path, arguments.format), arguments.output, arguments.splits)
    common.write(f"{arguments.output}: {_counted(counts)}")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from ciea_hf.data.builders.openclipart import build_openclipart

    _refuse_existing(arguments.output)
    counts = build_openclipart(arguments.source, arguments.output, progress=sys.stderr.isatty())
    common.write(f"{arguments.output}: {_counted(counts)}")
    return 0


def _refuse_existing(folder: Path) -> None:
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a new folder")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _report(result: CheckResult, limit: int) -> str:
    from ciea_hf.data.issues import ISSUE_TYPES

    lines = [f"{name}: {count}" for name, count in result.counts.items()]
    for kind, (level, title) in ISSUE_TYPES.items():
        count = result.faults.counts[kind]
        if count:
            lines += ["", f"{level}: {title}: {count}"]
            lines += [f"  {fault}" for fault in result.faults.of(kind)[:limit]]
            if count > limit:
                lines.append(f"  and {count - limit} more")
    return "\n".join([*lines, ""])


def _as_json(result: CheckResult) -> dict[str, object]:
    faults: Sequence[dict[str, object]] = [
        {
            "kind": fault.kind,
            "level": fault.level,
            "file": fault.place.file,
            fault.place.unit: fault.place.number,
            "id": fault.id,
            "message": fault.message,
        }
        for fault in result.faults
    ]
    totals = dict(result.faults.counts)
    return {"counts": result.counts, "blocking_errors": result.blocking_errors, "totals": totals, "faults": faults}
