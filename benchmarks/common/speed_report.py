"""The page of the benchmark of speed."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TITLES = {
    "train": "training step",
    "train_cached": "training step, cached features",
    "images": "encode captioned images",
    "images_prepared": "forward, captioned images",
    "queries": "encode queries",
    "queries_prepared": "forward, queries",
    "texts": "texts",
    "captioned_images": "captioned images",
}
SYSTEMS = {
    "padded": "padded loop",
    "transformers": "transformers",
    "sentence_transformers": "SentenceTransformer",
    "before": "before",
    "ciea": "ciea",
    "dev": "dev evaluation",
    "mining": "mining",
}


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
        results: Machine, values and an optional remark by section.

    Returns:
        The page in Markdown.
    """
    sections: dict[str, Callable[[Any], str]] = {
        "released": _released,
        "gpu": _gpu,
        "jpegs": _jpegs,
        "cold_start": _cold_start,
    }
    sections |= {name: partial(_in_turns, HEADS[name]) for name in HEADS}
    parts = [_HEAD.format(**next(iter(results.values()))["machine"])]
    parts += [make(results[name]) for name, make in sections.items() if name in results]
    return "\n\n".join(parts) + "\n"


def _released(section: Mapping[str, Any]) -> str:
    rows = [["task", "system", "s", "inputs/s", "ratio", "GFLOP", "of the GEMM rate", "memory, MB"]]
    for task, systems in section["values"].items():
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


def _jpegs(section: Mapping[str, Any]) -> str:
    values = section["values"]
    rows = [["version", "s", "of which start", "images/s", "ratio", "processor time per image, ms", "ratio"]]
    for system in (name for name in SYSTEMS if name in values["systems"]):
        value = values["systems"][system]
        first = values["systems"].get("before", value)
        row = [f"{value[name]:.1f}" for name in ("seconds", "start_seconds", "per_second")]
        row.append(f"{first['seconds'] / value['seconds']:.2f}")
        row.append(f"{value['processor_ms_per_image']:.1f}")
        row.append(f"{first['processor_ms_per_image'] / max(value['processor_ms_per_image'], 0.01):.2f}")
        rows.append([SYSTEMS[system], *row])
    head = _JPEGS_HEAD.format(**section["machine"], **values)
    return "\n\n".join([head, text_table(rows), *([section["remark"]] if "remark" in section else [])])


def _cold_start(section: Mapping[str, Any]) -> str:
    values = section["values"]
    rows = [["process", "s", "processor time, s", "ratio"]]
    for system in (name for name in SYSTEMS if name in values):
        seconds, processor = values[system]["seconds"], values[system]["processor_seconds"]
        ratio = processor / values["transformers"]["processor_seconds"]
        rows.append([SYSTEMS[system], f"{seconds:.1f}", f"{processor:.2f}", f"{ratio:.2f}"])
    return f"{_START_HEAD.format(**section['machine'])}\n\n{text_table(rows)}"


def _in_turns(head: str, section: Mapping[str, Any]) -> str:
    rows = [["documents", "system", "ms per document", "relative to ciea"]]
    for kind, systems in section["values"].items():
        for system in (name for name in SYSTEMS if name in systems):
            value = systems[system]["ms_per_document"]
            ratio = value / systems["ciea"]["ms_per_document"]
            rows.append([TITLES[kind], SYSTEMS[system], f"{value:.2f}", f"{ratio:.2f}"])
    remarks = [section["remark"]] if "remark" in section else []
    return "\n\n".join([head.format(**section["machine"]), text_table(rows), *remarks])


def _gpu(section: Mapping[str, Any]) -> str:
    values = section["values"]
    rates = values["rates"]
    rows = [["batch", "task", "system", "ms", "inputs/s", "TFLOP/s", "of the matrix rate", "of the model's shape",
             "memory, GB", "synchronisations"]]  # fmt: skip
    for found in values["measured"]:
        named = [str(found["batch"]), TITLES[found["task"]], SYSTEMS[found["system"]]]
        if "error" in found:
            rows.append([*named, found["error"].splitlines()[0][:60], *[""] * 6])
            continue
        figures = [f"{1000 * found['seconds']:.1f}", f"{found['per_second']:,.0f}", f"{found['tflops']:,.0f}"]
        shares = [f"{found['tflops'] / rates[name]:.2f}" for name in ("square", str(found["batch"]))]
        rows.append([*named, *figures, *shares, f"{found['memory_gb']:.1f}", str(found["synchronisations"])])
    head = _GPU_HEAD.format(**section["machine"], **values["card"], rate=rates["square"])
    profiles = [_profile(task, found) for task, found in values["profiles"].items()]
    remarks = [section["remark"]] if "remark" in section else []
    return "\n\n".join([head, text_table(rows), *remarks, *profiles])


def _profile(task: str, found: Mapping[str, Any]) -> str:
    rows = [["kernel", "calls", "ms", "share"]]
    for name, count, seconds in found["longest"]:
        rows.append([name[:90], str(count), f"{1000 * seconds:.2f}", f"{seconds / found['kernel_seconds']:.2f}"])
    return (
        f"### Profile: {TITLES[task]}\n\n{found['kernels']:,} kernels of {1000 * found['kernel_seconds']:.1f} ms; "
        f"{1000 * found['seconds']:.1f} ms with the profiler.\n\n{text_table(rows)}"
    )


HEADS = {
    "sentence_transformers": """## Against sentence-transformers

`encode` and `SentenceTransformer(folder).encode` of the same inputs, in turns in one process ({cpu}); size `{size}`,
one thread, medians of processor times. Command: `python -m benchmarks.speed --sections sentence_transformers`""",
    "per_document": """## Dev evaluation and mining

The dev evaluation of a training and the mining of negatives, per document, beside `encode` of the same documents and
queries, in turns in one process ({cpu}); size `{size}`, one thread, medians of processor times.
Command: `python -m benchmarks.speed --sections per_document`""",
}
_START_HEAD = """## Cold start

`ciea search` with one query in an index of 1,000 documents, and a process that imports transformers' T5 and CLIP and
loads the weights of the same towers with `from_pretrained` ({cpu}); size `{size}`. Medians of processes that take
turns; the ratio is that of processor times. Command: `python -m benchmarks.speed --sections cold_start`"""
_JPEGS_HEAD = """## A folder of JPEGs

`ciea encode` of {images:,} random photographs of 1 to 12 megapixels ({megapixels} on average, {megabytes} MB each, from
the cache of the file system), from the start of the command to its end, with all {cores} cores ({cpu}); size `{size}`.
Medians of wall times; versions take turns. *Start* is the time for one small image, which the
processor time per image does not include. The largest difference between the embeddings
of the versions is {difference:.0e}. Command: `python -m benchmarks.speed --sections jpegs --images {images}`"""
_GPU_HEAD = """## On a GPU

{name}, {cores} cores; Python {python}, torch {torch}, transformers {transformers}; size `{size}`. Encoding with weights
in bf16, training with weights in float32 and autocast to bf16. Wall times from the host until the card has finished,
medians in one process. *Encode* starts from texts and preprocessed images and includes tokenising and stacking;
*forward* and *training step* start from token ids, pixel values or features in pinned memory. All include the copies to
the card. Memory is the peak of all tensors on the card, weights and optimiser state included. The matrix rate of this
run is {rate:,.0f} TFLOP/s (8192 x 8192 x 8192, bf16); the model's shape is (75 per input) x 768 x 3072. Operations are
those of matrix products, convolutions and attention. A synchronisation is a call in which the host waits for the card.
Command: `python -m benchmarks.speed --sections gpu`"""
_HEAD = """# Speed

{cpu}, {cores} cores, {instructions}; Python {python}, torch {torch}, transformers {transformers}. Random weights of the
size `{size}`, fp32 and one thread unless a table says otherwise. The padded loop computes what the published code does:
texts of 128 positions, captioned images of 128 and the image, two vision passes per training step, cosines broadcast to
(images, T, P, D), stock AdamW. Times of one thread are processor times, medians over processes that take turns. Memory
is what a repetition adds to weights and optimiser state at its peak. Command: `python -m benchmarks.speed`"""
