"""The page of the benchmark of speed."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Mapping

TITLES = {
    "train": "training step",
    "train_cached": "training step, cached features",
    "images": "encode captioned images",
    "queries": "encode queries",
}
SYSTEMS = {"padded": "padded loop", "before": "before", "ciea": "ciea"}


def machine(size: str) -> dict[str, Any]:
    """Describe the machine and the versions."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": torch.multiprocessing.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "size": size,
    }


def page(results: Mapping[str, Any]) -> str:
    """Generate the result page.

    Args:
        results: Machine and values by section.

    Returns:
        The page in Markdown.
    """
    sections = {"released": _released}
    parts = [_HEAD.format(**next(iter(results.values()))["machine"])]
    parts += [make(results[name]["values"]) for name, make in sections.items() if name in results]
    return "\n\n".join(parts) + "\n"


def _released(values: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = [["task", "system", "s", "inputs/s", "ratio", "GFLOP", "of the GEMM rate", "memory, MB"]]
    for task, systems in values.items():
        for system in (name for name in SYSTEMS if name in systems):
            value = systems[system]
            ratio = systems["padded"]["seconds"] / value["seconds"]
            figures = [
                f"{value['seconds']:.2f}",
                f"{value['per_second']:.2f}",
                f"{ratio:.2f}",
                f"{value['gflop']:,.0f}",
            ]
            rows.append(
                [TITLES[task], SYSTEMS[system], *figures, f"{value['gemm_share']:.2f}", f"{value['memory_mb']:,}"]
            )
    return f"## Against the padded loop\n\n{text_table(rows)}"


_HEAD = """# Speed

{cpu}, {cores} cores, {instructions}; Python {python}, torch {torch}, transformers {transformers}. Random weights of the
size `{size}`, fp32 and one thread unless a table says otherwise. The padded loop computes what the published code does:
texts of 128 positions, captioned images of 128 and the image, two vision passes per training step, cosines broadcast to
(images, T, P, D), stock AdamW. Times of one thread are processor times, medians over processes that take turns. Memory
is what a repetition adds to weights and optimiser state at its peak. Command: `python -m benchmarks.speed`"""
