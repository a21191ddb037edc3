"""What the benchmark of speed measures: training steps and encoding, by this package and by the padded loop."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.common.memory import reset_peak, resident
from benchmarks.common.padded_loop import LAMBDA, PaddedLoop
from benchmarks.common.speed_sample import Sample, build_model, make_sample
from ciea_hf import utils

if TYPE_CHECKING:
    from collections.abc import Callable

    from ciea_hf import CIEAModel
    from ciea_hf.training.data.batch import TrainingBatch

TASKS = ("train", "train_cached", "images", "queries")
RATE = 1e-5
GEMM = (600, 768, 3072)  # rows and widths of the product whose rate is the yardstick


class Setting(NamedTuple):
    """Setting of one measurement.

    Attributes:
        system: `"ciea"`, or `"padded"` for the padded loop.
        task: One of `TASKS`.
        size: Size of the model.
        batch: Number of inputs of each kind in a step, or in a batch of the encoding.
        batches: Number of batches of an encoding.
        length: Words of each text; random if `None`.
        repeats: Number of timed repetitions, after one that is not timed.
        threads: Number of threads.
        dtype: `"float32"`, `"bfloat16"` (of the weights in encoding, of autocast in training) or `"int8"` (dynamic).
    """

    system: str
    task: str
    size: str
    batch: int
    batches: int = 1
    length: int | None = None
    repeats: int = 3
    threads: int = 1
    dtype: str = "float32"


class Result(NamedTuple):
    """Result of one measurement.

    Attributes:
        seconds: Seconds of each repetition; processor time of one thread, wall time of several.
        flops: Floating-point operations of a repetition.
        gemm: Rate of a matrix product in the same process, in operations per second.
        memory: Bytes that the repetitions add to weights and optimiser state at their peak.
    """

    seconds: list[float]
    flops: float
    gemm: float
    memory: int


def measure(setting: Setting) -> Result:
    """Measure one task of one system in this process."""
    torch.set_num_threads(setting.threads)
    clock = time.process_time if setting.threads == 1 else time.perf_counter
    model = build_model(setting.size)
    sample = make_sample(model, setting.batch * setting.batches, setting.length)
    if setting.dtype == "bfloat16" and not setting.task.startswith("train"):
        model = model.bfloat16()
    elif setting.dtype == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    before = reset_peak()
    task, state = make_task(setting, model, sample)
    flops = count_flops(task)  # the repetition that is not timed
    seconds, gemm = [], []
    for _ in range(setting.repeats):
        gemm.append(gemm_rate(clock))
        start = clock()
        task()
        seconds.append(clock() - start)
    memory = resident("VmHWM") - before - state()
    return Result(seconds, flops, sorted(gemm)[len(gemm) // 2], memory)


def make_task(setting: Setting, model: CIEAModel, sample: Sample) -> tuple[Callable[[], object], Callable[[], int]]:
    """Return a function that runs the task once, and one that returns the bytes of the optimiser's state."""
    if setting.task.startswith("train"):
        step, optimizer = _training_step(setting, model, sample)
        return step, lambda: sum(t.nbytes for s in optimizer.state.values() for t in s.values())
    make = padded_encoding if setting.system == "padded" else encoding
    return make(model, sample, setting.task, setting.batch), lambda: 0


def _training_step(
    setting: Setting, model: CIEAModel, sample: Sample
) -> tuple[Callable[[], object], torch.optim.Optimizer]:
    from ciea_hf.training.run.optim import build_optimizer, clamp_logit_scale, freeze, parameter_groups

    freeze(model, ["vision"])
    optimizer: torch.optim.Optimizer
    groups = parameter_groups(model, RATE, None, 0.2)
    autocast = partial(torch.autocast, model.device.type, torch.bfloat16, setting.dtype == "bfloat16")
    if setting.system == "padded":
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)
        loss = padded_loss(model.train(), sample)
    else:
        optimizer = build_optimizer(groups, (0.9, 0.98), 1e-6)
        loss = training_loss(model, sample, setting.task == "train_cached")

    def step() -> None:
        with autocast():
            value = loss()
        value.backward()
        shown = [value.detach()]
        if setting.system != "padded":
            shown.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        torch.stack(shown).tolist()  # reported in every step
        optimizer.step()
        optimizer.zero_grad()
        clamp_logit_scale(model.logit_scale)

    return step, optimizer


def padded_loss(model: CIEAModel, sample: Sample) -> Callable[[], torch.Tensor]:
    """Return the padded loop's loss of a batch."""
    loop = PaddedLoop(model)
    return partial(loop.loss, [_pinned(model, part) for part in loop.prepare(sample, reduced_queries(model, sample))])


def training_loss(model: CIEAModel, sample: Sample, cached: bool = False) -> Callable[[], torch.Tensor]:
    """Return the package's loss of a batch, with pixels or with features computed beforehand."""
    from ciea_hf.training.loss.embedder import Embedder
    from ciea_hf.training.loss.objective import Objective

    keep = getattr(utils, "keep_freed_memory", None)  # as in a training; older versions do not have it
    if keep is not None and model.device.type == "cpu":
        keep()
    batch = training_batch(model, sample, cached)
    embedder = Embedder(model, "projected").train()
    objective = Objective({"contrastive": 1.0, "complementary": LAMBDA})

    def loss() -> torch.Tensor:
        moved = batch.to(model.device)
        return objective.total(objective(*embedder(moved.groups), moved))

    return loss


def training_batch(model: CIEAModel, sample: Sample, cached: bool) -> TrainingBatch:
    """Build the batch of a training step, in which query i belongs to image i."""
    from ciea_hf.retrieval.documents import DocumentInput
    from ciea_hf.training.data.collator import Collator
    from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
    from ciea_hf.training.data.examples import Example

    examples = []
    features = None
    if cached:
        with torch.no_grad():
            pixel_values = torch.stack([image.pixel_values for image in sample.images])
            features = model.get_vision_features(pixel_values.to(model.device)).half().cpu()
    for row, (query, caption) in enumerate(zip(sample.queries, sample.captions, strict=True)):
        image = sample.images[row] if features is None else None
        document = DocumentInput(row, caption, image, None if features is None else features[row])
        examples.append(Example(str(row), query, [row], [row], [document], [caption]))
    collator = Collator(model.processor, query_builder=ComplementaryQueryBuilder(model.processor.tokenizer))
    collator.of_equal_length = model.device.type == "cpu"
    batch = collator(examples)
    return batch.pin_memory() if model.device.type == "cuda" else batch


def reduced_queries(model: CIEAModel, sample: Sample) -> list[list[int]]:
    """Return the token ids of the queries without the words of their captions."""
    from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder

    tokenizer: Any = model.processor.tokenizer
    builder = ComplementaryQueryBuilder(tokenizer)
    found = []
    for query, caption in zip(tokenizer(sample.queries)["input_ids"], sample.captions, strict=True):
        found.append(builder(query, [caption]) or query)
    return found


def encoding(model: CIEAModel, sample: Sample, task: str, batch_size: int) -> Callable[[], torch.Tensor]:
    """Return a function that embeds the sample's captioned images or queries with `encode`."""
    inputs: list[Any] = list(sample.queries)
    if task == "images":
        inputs = [{"text": text, "image": image} for text, image in zip(sample.captions, sample.images, strict=True)]
    return lambda: model.encode(inputs, batch_size=batch_size, convert_to_tensor=True, normalize_embeddings=True)


def prepared_encoding(model: CIEAModel, sample: Sample, task: str) -> Callable[[], torch.Tensor]:
    """Return a function that embeds the sample in one pass, from token ids and pixel values in the host's memory."""
    images = task.startswith("images")
    texts = sample.captions if images else sample.queries
    inputs = dict(model.processor.tokenize(texts, [images] * len(texts)))
    if images:
        inputs["pixel_values"] = torch.stack([image.pixel_values for image in sample.images])
    inputs = {name: _pinned(model, tensor) for name, tensor in inputs.items()}

    @torch.inference_mode()
    def run() -> torch.Tensor:
        moved = {name: tensor.to(model.device, non_blocking=True) for name, tensor in inputs.items()}
        found: torch.Tensor = model(**moved, return_dict=True).embeddings
        return F.normalize(found.float(), dim=-1)

    return run


def _pinned(model: CIEAModel, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory() if model.device.type == "cuda" else tensor


def padded_encoding(model: CIEAModel, sample: Sample, task: str, batch_size: int) -> Callable[[], torch.Tensor]:
    """Return a function that embeds the same inputs with the padded loop."""
    loop = PaddedLoop(model)

    @torch.no_grad()
    def run() -> torch.Tensor:
        found = []
        for start in range(0, len(sample.queries), batch_size):
            rows = slice(start, start + batch_size)
            if task == "images":
                pixel_values = torch.stack([image.pixel_values for image in sample.images[rows]])
                found.append(loop.embed_captioned(*loop.tokenize(sample.captions[rows], images=True), pixel_values))
            else:
                found.append(loop.embed_texts(*loop.tokenize(sample.queries[rows], images=False)))
        return F.normalize(torch.cat(found), dim=-1)

    return run


def count_flops(task: Callable[[], object]) -> float:
    """Count the floating-point operations of matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        task()
    return float(counter.get_total_flops())


def gemm_rate(clock: Callable[[], float], seconds: float = 0.3) -> float:
    """Measure the rate of a matrix product of the language model's size, in operations per second."""
    rows, width, inner = GEMM
    left, right = torch.randn(rows, width), torch.randn(width, inner)
    done, start = 0, clock()
    while clock() - start < seconds:
        torch.mm(left, right)
        done += 1
    return 2.0 * rows * width * inner * done / (clock() - start)
