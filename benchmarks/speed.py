"""Training steps and encoding against a padded loop with two vision passes, as the published code runs it.

Section `released`: each value is the median of repetitions in several processes, which take turns, so that ratios hold
while other programs run. With one thread, times are processor times. Section `gpu`: bf16 on a GPU by batch size, in one
process. Section `jpegs`: `ciea encode` of a folder of photographs. Section `cold_start`: `ciea search` with one query.
Sections `sentence_transformers` and `per_document`: other ways to embed the same documents. Models have random weights
and the sizes of CLIP ViT-B/32 and T5-base; queries have 16 tokens on average and captions 24.

Examples:
  python -m benchmarks.speed --rounds 5
  python -m benchmarks.speed --sections gpu --batches 256 64 1024         # bf16 on a GPU, in two minutes
  python -m benchmarks.speed --sections released --against build/before   # a third system: an older version
  python -m benchmarks.speed --sections jpegs --images 2000 --against build/before
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.files import make_parser, say, write_page
from benchmarks.common.memory import measure_in_child
from benchmarks.common.speed_documents import measure_per_document, measure_sentence_transformers
from benchmarks.common.speed_gpu import measure_gpu
from benchmarks.common.speed_jpegs import measure_jpegs
from benchmarks.common.speed_report import machine, page
from benchmarks.common.speed_sample import SIZES
from benchmarks.common.speed_start import measure_cold_start
from benchmarks.common.speed_tasks import TASKS, Result, Setting, measure
from ciea_hf.files import write_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

MODULE = "benchmarks.speed"
NAME = "speed"
SECTIONS = ("released", "gpu", "jpegs", "cold_start", "sentence_transformers", "per_document")
SMALL = ("jpegs", "cold_start")  # sections that measure the demonstration's model by default
ENCODED = 4  # batches of an encoding


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen sections, and write the record and the result page of all sections measured so far.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parsed = _parse(arguments)
    if parsed.child:
        say(json.dumps(measure(Setting(*json.loads(parsed.child)))))
        return 0
    stored = parsed.output / f"{NAME}.json"
    results: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    for section in parsed.sections:
        for values in MEASURES[section](parsed):
            results[section] = {"machine": machine(_size(parsed, section)), "values": values}
            write_json(stored, results)  # after each measurement, so that none is lost
    write_page(parsed.output / f"{NAME}.md", page(results))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("speed", __doc__)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["released"], help="default: released")
    parser.add_argument("--size", choices=SIZES, help="size of the model (default: base; demo in jpegs and cold_start)")
    parser.add_argument("--batch", type=int, default=8, help="inputs of each kind per step (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="processes per system and task (default: 3)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions per process (default: 3)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="tasks (default: all)")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="folder of another version (pip install --target) to measure, too"
    )
    parser.add_argument(
        "--batches", nargs="+", type=int, default=[256, 64, 1024], help="of section gpu (default: 256 64 1024)"
    )
    parser.add_argument(
        "--seconds", type=float, default=110, help="section gpu starts no measurement afterwards (default: 110)"
    )
    parser.add_argument("--images", type=int, default=200, help="of section jpegs, up to 2000 (default: 200)")
    parser.add_argument(
        "--documents", type=int, default=64, help="of sentence_transformers and per_document (default: 64)"
    )
    parser.add_argument("--child", help=f"internal: measure one setting, a JSON list of {', '.join(Setting._fields)}")
    return parser.parse_args(arguments)


def _gpu(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    return measure_gpu(_size(parsed, "gpu"), parsed.batches, parsed.seconds)


def _jpegs(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    environments = {"ciea": {**os.environ}}
    if parsed.against:
        environments["before"] = os.environ | _environment(parsed.against)
    return measure_jpegs(_size(parsed, "jpegs"), parsed.images, parsed.rounds, environments)


def _cold_start(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    return measure_cold_start(_size(parsed, "cold_start"), parsed.rounds)


def _sentence_transformers(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    size = _size(parsed, "sentence_transformers")
    return measure_sentence_transformers(size, parsed.documents, parsed.batch, parsed.rounds)


def _per_document(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    return measure_per_document(_size(parsed, "per_document"), parsed.documents, parsed.batch, parsed.rounds)


def _size(parsed: argparse.Namespace, section: str) -> str:
    size: str = parsed.size or ("demo" if section in SMALL else "base")
    return size


def _environment(version: Path) -> dict[str, str]:
    """Return the environment variables with which another version of the package is imported."""
    return {"PYTHONPATH": os.pathsep.join([str(version.resolve()), str(Path.cwd())]), "PYTHONSAFEPATH": "1"}


def _released(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure training steps and encoding of all systems in turns; yield values by task and system so far."""
    size = _size(parsed, "released")
    systems: dict[str, tuple[str, Mapping[str, str]]] = {"padded": ("padded", {}), "ciea": ("ciea", {})}
    if parsed.against:
        systems["before"] = ("ciea", _environment(parsed.against))
    found: dict[str, dict[str, Any]] = {}
    for task in parsed.tasks:
        batches = 1 if task.startswith("train") else ENCODED
        known = found.get("train") if task == "train_cached" else None  # the padded loop has no cache
        measured = {name: value for name, value in systems.items() if name != "padded" or known is None}
        runs: dict[str, list[Result]] = {name: [] for name in measured}
        for _ in range(parsed.rounds):
            for name, (system, environment) in measured.items():
                setting = Setting(system, task, size, parsed.batch, batches, repeats=parsed.repeats)
                runs[name].append(Result(*measure_in_child(MODULE, setting, environment)))
        found[task] = {name: _summary(results, parsed.batch * batches) for name, results in runs.items()}
        if known is not None:
            found[task]["padded"] = known["padded"]
        say(f"{task}: {found[task]}")
        yield found


def _summary(results: Sequence[Result], items: int) -> dict[str, float]:
    """Summarise the results of several processes: medians per item, and the share of the rate of a matrix product."""
    seconds = sorted(value for result in results for value in result.seconds)
    median = seconds[len(seconds) // 2]
    gemm = sorted(result.gemm for result in results)[len(results) // 2]
    return {
        "seconds": round(median, 5),
        "fastest": round(seconds[0], 5),
        "per_second": round(items / median, 3),
        "gemm_share": round(results[0].flops / median / gemm, 3),
        "gflop": round(results[0].flops / 1e9, 4),
        "memory_mb": round(sorted(result.memory for result in results)[len(results) // 2] / 2**20),
    }


MEASURES = {
    "released": _released,
    "gpu": _gpu,
    "jpegs": _jpegs,
    "cold_start": _cold_start,
    "sentence_transformers": _sentence_transformers,
    "per_document": _per_document,
}

if __name__ == "__main__":
    sys.exit(main())
