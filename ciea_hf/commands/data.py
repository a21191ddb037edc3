"""Check, convert and build retrieval data sets."""

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
CHECK_EXAMPLES = """
  ciea data check data/webqa                      # exit status 0: training can run; 1: it cannot
  ciea data check data/webqa --fix data/clean     # also write a copy without the issues
"""
CONVERT_EXAMPLES = """
  ciea data convert data/webqa --output data/own  # parquet files, ready for push_to_hub
"""
BUILD_EXAMPLES = """
  ciea data build openclipart --source unpacked --output data/openclipart
"""
EXAMPLES = CHECK_EXAMPLES + CONVERT_EXAMPLES.lstrip("\n") + BUILD_EXAMPLES.lstrip("\n")
PATH_HELP = "folder, file or Hub id of a data set in any supported format"
CANNOT_TRAIN = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    check = actions.add_parser("check", help="read all data once and report issues")
    common.describe(check, "Read a data set once, images included, and report all issues.", CHECK_EXAMPLES)
    check.add_argument("path", metavar="PATH", help=PATH_HELP)
    check.add_argument("--fix", metavar="FOLDER", type=Path, help="new folder for a copy without the issues")
    check.add_argument("--limit", type=common.positive, default=10, help="issues shown per type (default: 10)")
    check.add_argument("--output", type=Path, metavar="JSON", help="file for counts and issues")
    common.add_workers_argument(check, default=2)
    convert = actions.add_parser("convert", help="write a data set in the parquet format")
    common.describe(convert, "Write a data set in the BEIR-style parquet format of this package.", CONVERT_EXAMPLES)
    convert.add_argument("path", metavar="PATH", help=PATH_HELP)
    for command in (check, convert):
        common.add_format_argument(command)
        command.add_argument("--splits", nargs="+", metavar="SPLIT", help="splits to read (default: all)")
        command.add_argument(
            "--image-root", type=Path, metavar="FOLDER", help="folder of the images (default: that of the data set)"
        )
    build = actions.add_parser("build", help="build a data set from local sources")
    common.describe(build, "Build a data set from files on this machine; nothing is downloaded.", BUILD_EXAMPLES)
    build.add_argument("name", choices=("openclipart",), help="data set to build")
    build.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder in which Debian's openclipart-svg and openclipart-png are installed or unpacked (dpkg -x)",
    )
    for command in (convert, build):
        command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder")


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    action = {"check": _check, "convert": _convert, "build": _build}[arguments.action]
    return action(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from ciea_hf.data.check_result import TRAIN, IssueCollector
    from ciea_hf.data.checking import Checker
    from ciea_hf.data.loading import open_reader
    from ciea_hf.files import write_json

    common.check_output("--output", arguments.output)
    if arguments.fix:
        common.check_new_folder("--fix", arguments.fix)
    issues = IssueCollector(Path(arguments.path))
    reader = open_reader(arguments.path, arguments.format, issues, arguments.image_root)
    result = Checker(reader, arguments.workers, progress=sys.stderr.isatty()).run(arguments.splits)
    common.write(_report(result, arguments.limit))
    if arguments.output:
        write_json(arguments.output, _as_json(result))
    if arguments.fix:
        from ciea_hf.data.export import write_cleaned

        counts = write_cleaned(reader, result, arguments.fix)
        common.write(f"\nwritten without the issues: {arguments.fix} ({_counted(counts)})")
        if counts.get(TRAIN) == 0 and not result.blocking_errors:
            common.write("the copy has no training query left: all occur in later splits")
    for error in result.blocking_errors:
        common.write(f"training cannot run: {error}")
    if not result.blocking_errors:
        common.write(" ".join(["training can run", *result.conditions]))
    return CANNOT_TRAIN if result.blocking_errors else 0


def _convert(arguments: argparse.Namespace) -> int:
    from ciea_hf.data.export import convert_dataset
    from ciea_hf.data.loading import open_reader

    common.check_new_folder("--output", arguments.output)
    reader = open_reader(arguments.path, arguments.format, image_root=arguments.image_root)
    counts = convert_dataset(reader, arguments.output, arguments.splits)
    common.write(f"{arguments.output}: {_counted(counts)}")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from ciea_hf.data.builders.openclipart import build_openclipart

    common.check_new_folder("--output", arguments.output)
    counts = build_openclipart(arguments.source, arguments.output, progress=sys.stderr.isatty())
    common.write(f"{arguments.output}: {_counted(counts)}")
    return 0


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _report(result: CheckResult, limit: int) -> str:
    from ciea_hf.data.issues import ISSUE_TYPES

    lines = [f"{name}: {count}" for name, count in result.counts.items()]
    for kind, (level, title) in ISSUE_TYPES.items():
        count = result.issues.counts[kind]
        if count:
            lines += ["", f"{level}: {title}: {count}"]
            lines += [f"  {issue}" for issue in result.issues.of(kind)[:limit]]
            if count > limit:
                lines.append(f"  and {count - limit} more")
    return "\n".join([*lines, ""])


def _as_json(result: CheckResult) -> dict[str, object]:
    issues: Sequence[dict[str, object]] = [
        {
            "kind": issue.kind,
            "level": issue.level,
            "file": issue.location.file,
            issue.location.unit: issue.location.number,
            "id": issue.id,
            "message": issue.message,
        }
        for issue in result.issues
    ]
    totals = dict(result.issues.counts)
    return {"counts": result.counts, "blocking_errors": result.blocking_errors, "totals": totals, "issues": issues}
