"""Peak memory and time of a training step, with and without gradient caching, for growing batch sizes.

Each value is measured in a separate process, as the memory that the step adds to the model, its gradients and the
batch. Freed memory is returned to the system at once. Each query comes with a reduced query and a captioned image;
the loss is L_c + lambda L_comp. Weights and inputs are random. The benchmark requires Linux, where a process can
reset its peak memory.

Examples:
  python -m benchmarks.gradient_cache               # 32, 128 and 512 queries, chunks of 16 rows
  python -m benchmarks.gradient_cache --batches 32 64 --width 64 --layers 1
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.files import make_parser, say, write_page
from benchmarks.common.memory import measure_in_child, reset_peak, resident
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from torch import Tensor

    from ciea_hf.training.data.batch import InputGroup, TrainingBatch
    from ciea_hf.training.loss.embedder import Embedder
    from ciea_hf.training.loss.objective import Objective

NAME = "gradient_cache.md"
VOCABULARY = 1000
IMAGE_TOKEN, IMAGE_START, IMAGE_END = VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1
QUERY_TOKENS, REDUCED_TOKENS, CAPTION_TOKENS, PATCHES = 16, 12, 24, 49
MB = 2**20
# These make glibc return freed memory to the system at once, so that resident memory is memory in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


class Setting(NamedTuple):
    """Setting of one measurement.

    Attributes:
        batch: Number of queries.
        chunk: Chunk size of gradient caching in rows; None measures without caching.
        width: Width of the language model.
        layers: Number of layers of the encoder, and of the decoder.
    """

    batch: int
    chunk: int | None
    width: int
    layers: int


class Result(NamedTuple):
    """Result of one measurement.

    Attributes:
        peak: Memory added by the step at its peak, in MB.
        inputs: Size of the batch, in MB.
        seconds: Time of the step.
    """

    peak: float
    inputs: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each batch size with and without caching, and write the result page.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parsed = _parse(arguments)
    if parsed.child:
        say(json.dumps(measure(Setting(*json.loads(parsed.child)))))
        return 0
    rows = []
    for batch in parsed.batches:
        results = []
        for chunk in (None, parsed.chunk):
            setting = Setting(batch, chunk, parsed.width, parsed.layers)
            results.append(Result(*measure_in_child("benchmarks.gradient_cache", setting, ALLOCATOR)))
        plain, cached = results
        say(f"batch {batch}: plain {plain.peak:.0f} MB, cached {cached.peak:.0f} MB")
        rows.append((batch, plain, cached))
    setting = Setting(max(parsed.batches), parsed.chunk, parsed.width, parsed.layers)
    write_page(parsed.output / NAME, page(rows, setting, arguments))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("gradient_cache", __doc__)
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[32, 128, 512], help="batch sizes in queries (default: 32 128 512)"
    )
    parser.add_argument("--chunk", type=int, default=16, help="GradCache chunk size in rows (default: 16)")
    parser.add_argument("--width", type=int, default=256, help="width of the language model (default: 256)")
    parser.add_argument("--layers", type=int, default=2, help="layers of its encoder and of its decoder (default: 2)")
    parser.add_argument("--child", help=f"internal: measure one setting, a JSON list of {', '.join(Setting._fields)}")
    return parser.parse_args(arguments)


def measure(setting: Setting) -> Result:
    """Measure one training step.

    A step with 16 queries runs first, so that gradients and libraries are already in memory.
    """
    import torch

    torch.manual_seed(0)
    embedder, objective = build(setting)
    step(embedder, objective, make_batch(16, setting.chunk))
    embedder.zero_grad(set_to_none=False)
    batch = make_batch(setting.batch, setting.chunk)
    inputs = sum(t.nbytes for group in batch.groups for t in vars(group).values() if isinstance(t, torch.Tensor))
    before = reset_peak()
    start = time.perf_counter()
    step(embedder, objective, batch)
    seconds = time.perf_counter() - start
    return Result((resident("VmHWM") - before) / MB, inputs / MB, seconds)


def build(setting: Setting) -> tuple[Embedder, Objective]:
    """Build embedder and objective for a model with the vision tower of the embedded benchmark (49 patches)."""
    from transformers import CLIPVisionConfig, T5Config

    from ciea_hf import CIEAConfig, CIEAModel
    from ciea_hf.training.loss.embedder import Embedder
    from ciea_hf.training.loss.objective import Objective
    from ciea_hf.training.run.optim import freeze

    vision = CLIPVisionConfig(
        image_size=112, patch_size=16, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    text = T5Config(
        vocab_size=VOCABULARY, d_model=setting.width, d_kv=setting.width // 8, d_ff=4 * setting.width,
        num_layers=setting.layers, num_heads=8,
    )  # fmt: skip
    config = CIEAConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN, image_start_token_id=IMAGE_START,
        image_end_token_id=IMAGE_END,
    )  # fmt: skip
    model = CIEAModel(config)
    freeze(model, ["vision"])
    embedder = Embedder(model, "extracted", gradient_cache=setting.chunk is not None).train()
    return embedder, Objective({"contrastive": 1.0, "complementary": 0.1})


def make_batch(size: int, chunk: int | None) -> TrainingBatch:
    """Create a batch with `size` queries, reduced queries and captioned images; each query has one positive."""
    import torch

    from ciea_hf.training.data.batch import TrainingBatch

    rows = torch.arange(size)
    pairs = torch.stack([rows, rows], dim=1)
    groups = []
    for number, kind in enumerate(("query", "reduced", "image")):
        groups += make_groups(kind, number * size + rows, chunk)
    return TrainingBatch(
        groups=groups,
        query_ids=[str(i) for i in range(size)],
        reduced=rows,
        documents=rows,
        images=rows,
        targets=pairs,
        relevant=pairs,
    )


def make_groups(kind: str, positions: Tensor, chunk: int | None) -> list[InputGroup]:
    """Create the forward passes of one kind of input.

    Args:
        kind: `query`, `reduced` or `image`.
        positions: (rows,) positions of the inputs in the batch.
        chunk: Maximum number of rows per pass; None for one pass.

    Returns:
        The forward passes.
    """
    import torch

    from ciea_hf.training.data.batch import InputGroup

    groups = []
    for block in positions.split(chunk or len(positions)):
        rows = len(block)
        if kind == "image":
            image = [IMAGE_START] + [IMAGE_TOKEN] * PATCHES + [IMAGE_END]
            caption = torch.randint(5, IMAGE_TOKEN, (rows, CAPTION_TOKENS))
            ids = torch.cat([torch.tensor([image] * rows), caption], dim=1)
            groups.append(InputGroup(block, ids, torch.ones_like(ids), torch.randn(rows, 3, 112, 112)))
        else:
            ids = torch.randint(5, IMAGE_TOKEN, (rows, QUERY_TOKENS if kind == "query" else REDUCED_TOKENS))
            groups.append(InputGroup(block, ids, torch.ones_like(ids)))
    return groups


def step(embedder: Embedder, objective: Objective, batch: TrainingBatch) -> None:
    """Run one forward and backward pass."""
    objective.total(objective(*embedder(batch.groups), batch)).backward()


def page(rows: Sequence[tuple[int, Result, Result]], setting: Setting, arguments: Sequence[str]) -> str:
    """Generate the result page.

    Args:
        rows: Batch sizes, each with its results without and with caching.
        setting: Setting of the measurements; its batch size is not used.
        arguments: Command-line arguments of the benchmark.

    Returns:
        The page in Markdown.
    """
    import torch

    table = [["batch", "plain, MB", "cached, MB", "plain, s", "cached, s", "batch itself, MB"]]
    for batch, plain, cached in rows:
        peaks = [f"{plain.peak:.0f}", f"{cached.peak:.0f}"]
        seconds = [f"{plain.seconds:.1f}", f"{cached.seconds:.1f}"]
        table.append([str(batch), *peaks, *seconds, f"{cached.inputs:.0f}"])
    cached_peaks = [cached.peak for _, _, cached in rows]
    increase = max(cached_peaks) / min(cached_peaks) - 1
    return f"""# Gradient caching: memory of a training step

Memory that one training step adds to the model, its gradients and the batch; chunks of {setting.chunk} rows. T5 of
width {setting.width} with {setting.layers} + {setting.layers} layers, 49 patches, with dropout, CPU, fp32,
torch {torch.__version__}. Command: `{" ".join(["python -m benchmarks.gradient_cache", *arguments])}`

{text_table(table)}

With caching, the highest peak is {increase:.0%} above the lowest.
"""


if __name__ == "__main__":
    sys.exit(main())
