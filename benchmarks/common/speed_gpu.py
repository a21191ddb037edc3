"""The section of the benchmark of speed that measures a GPU in bf16, in one process."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks.common.device_measures import (
    matrix_rate,
    median,
    peak_memory,
    profile,
    repeated,
    reset_peak_memory,
    synchronise,
)
from benchmarks.common.files import say
from benchmarks.common.speed_sample import Sample, build_model, make_sample
from benchmarks.common.speed_tasks import GEMM, Setting, count_flops, make_task, prepared_encoding
from benchmarks.common.synchronisations import synchronisations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ciea_hf import CIEAModel

TASKS = ("train", "images_prepared", "train_cached", "images", "queries_prepared", "queries")
PADDED = ("train", "images", "queries")
LARGEST_PADDED = 256
PROFILED = ("train", "images_prepared")
BATCHES = 2  # of an encoding with `encode`, so that it prepares one while it computes the other
IMAGES = 256  # different images
SQUARE = (8192, 8192, 8192)
BASE_BATCH = 8  # batch of which `GEMM` has the tokens
DTYPE = "bfloat16"


class Case(NamedTuple):
    """One measurement.

    Attributes:
        batch: Inputs of each kind in a step, or in a batch of an encoding.
        system: `"ciea"`, or `"padded"` for the padded loop.
        task: Task; `images_prepared` and `queries_prepared` are one forward pass over prepared inputs.
    """

    batch: int
    system: str
    task: str


def cases(batches: Sequence[int]) -> list[Case]:
    """Return the measurements of the batch sizes, the package's before those of the padded loop."""
    found = []
    for batch in batches:
        found += [Case(batch, "ciea", task) for task in TASKS]
        found += [Case(batch, "padded", task) for task in PADDED if batch <= LARGEST_PADDED]
    return found


def measure_gpu(size: str, batches: Sequence[int], limit: float) -> Iterator[dict[str, Any]]:
    """Measure all cases in one process, the most important ones first.

    Args:
        size: Size of the model.
        batches: Batch sizes. Profiles are those of the first.
        limit: Seconds after which no measurement is started.

    Yields:
        Everything measured so far, after each measurement.

    Raises:
        SystemExit: If there is no GPU, unless the size is that of tests.
    """
    if not torch.cuda.is_available() and size != "tiny":
        raise SystemExit("section 'gpu': torch finds no CUDA device; without one, choose another section")
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = _Bench(size, device)
    values: dict[str, Any] = {"card": card(device), "rates": bench.rates(batches), "measured": [], "profiles": {}}
    say(f"{time.perf_counter() - start:.0f} s: {values['card']}, {values['rates']}")
    yield values
    for case in cases(batches):
        if time.perf_counter() - start > limit:
            values["measured"].append({**case._asdict(), "error": f"not measured within {limit:g} s"})
            continue
        profiled = case.batch == batches[0] and case.system == "ciea" and case.task in PROFILED
        measured, profile_ = bench.measure(case, profiled)
        values["measured"].append(measured)
        if profile_:
            values["profiles"][case.task] = profile_
        say(f"{time.perf_counter() - start:.0f} s: {measured}")
        yield values
    yield values


def card(device: torch.device) -> dict[str, Any]:
    """Describe the card."""
    if device.type != "cuda":
        return {"name": "CPU"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9),
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
    }


class _Bench:
    """Measures cases on one device.

    Args:
        size: Size of the model.
        device: Device.
    """

    def __init__(self, size: str, device: torch.device) -> None:
        self.size = size
        self.device = device
        self._models: dict[bool, CIEAModel] = {}
        self._samples: dict[int, Sample] = {}

    def rates(self, batches: Sequence[int]) -> dict[str, float]:
        """Return the rates of a large product and of one of the model's shape per batch size, in TFLOP/s."""
        square = SQUARE if self.device.type == "cuda" else (64, 64, 64)
        found = {"square": square} | {str(batch): _model_shape(batch) for batch in batches}
        return {name: round(matrix_rate(shape, self.device, torch.bfloat16) / 1e12, 3) for name, shape in found.items()}

    def measure(self, case: Case, profiled: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Measure a case; an error, such as a lack of memory, becomes its result, and the next case can run."""
        found: dict[str, Any] = case._asdict()
        profile_: dict[str, Any] = {}
        try:
            self._fill(case, found, profile_ if profiled else None)
        except torch.cuda.OutOfMemoryError:
            found["error"] = "out of memory"
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            found["error"] = f"{type(error).__name__}: {error}"[:500]
        for model in self._models.values():
            model.zero_grad()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return found, profile_

    def _fill(self, case: Case, found: dict[str, Any], profile_: dict[str, Any] | None) -> None:
        task, items = self._task(case)
        found |= self._values(task, items)
        if profile_ is not None:
            profile_ |= profile(task, self.device)

    def _task(self, case: Case) -> tuple[Callable[[], object], int]:
        prepared = case.task.endswith("_prepared")
        training = case.task.startswith("train")
        items = case.batch if training or prepared else BATCHES * case.batch
        model = self._model(training)
        if items not in self._samples:
            self._samples[items] = make_sample(model, items, images=IMAGES)
        sample = self._samples[items]
        if prepared:
            return prepared_encoding(model, sample, case.task), items
        setting = Setting(case.system, case.task, self.size, case.batch, dtype=DTYPE)
        return make_task(setting, model, sample)[0], items

    def _model(self, training: bool) -> CIEAModel:
        """Return the model with weights in float32 for training, which autocast computes with in bf16, or in bf16."""
        if training not in self._models:
            model = build_model(self.size)
            if not training:
                model = model.bfloat16()
            model.to(self.device)  # type: ignore[arg-type]
            self._models[training] = model
        return self._models[training]

    def _values(self, task: Callable[[], object], items: int) -> dict[str, Any]:
        flops = count_flops(task)
        sites = synchronisations(task, self.device)
        synchronise(self.device)
        reset_peak_memory(self.device)
        seconds = repeated(task, self.device)
        middle = median(seconds)
        return {
            "seconds": round(middle, 6),
            "fastest": round(min(seconds), 6),
            "repetitions": len(seconds),
            "per_second": round(items / middle, 2),
            "gflop": round(flops / 1e9, 4),
            "tflops": round(flops / middle / 1e12, 4),
            "memory_gb": round(peak_memory(self.device) / 1e9, 3),
            "synchronisations": sum(sites.values()),
            "sites": sites,
        }


def _model_shape(batch: int) -> tuple[int, int, int]:
    rows, inner, columns = GEMM
    return rows * batch // BASE_BATCH, inner, columns
