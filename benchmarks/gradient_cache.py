"""Peak memory and time of a training step, with and without gradient caching, at growing batch sizes.

  python -m benchmarks.gradient_cache                         # 32, 128, 512 queries, chunks of 16
  python -m benchmarks.gradient_cache --batches 32 64 --width 64 --layers 1

Each figure comes from a process of its own: what the step adds to the resident memory of a process that holds the
model, its gradients and the batch, where freed memory is given back at once. Every query comes with a reduced query and
a captioned image; L = L_c + lambda L_comp. Random weights, random inputs; Linux, where a process's peak can be reset.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, NamedTuple

from benchmarks.common.files import make_parser, say
from benchmarks.common.memory import measure_in_child, reset_peak, resident
from ciea_hf.utils import atomic_write

NAME = "gradient_cache.md"
QUERY_TOKENS, REDUCED_TOKENS, CAPTION_TOKENS, VOCABULARY = 16, 12, 24, 1000
MB = 2**20
# to glibc: keep nothing that is freed, so that resident memory is what is in use
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


class Setting(NamedTuple):
    """What one process measures."""

    batch: int
    chunk: int | None
    width: int
    layers: int


class Figure(NamedTuple):
    """What it found: MB that the step added at its peak, MB of the batch, and seconds of the step."""

    peak: float
    inputs: float
    seconds: float


def main() -> int:
    """Measure, write the page and show it; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512], help="queries of a step")
    parser.add_argument("--chunk", type=int, default=16, help="rows embedded at once with gradient caching")
    parser.add_argument("--width", type=int, default=256, help="of the language model")
    parser.add_argument("--layers", type=int, default=2, help="of the language model's encoder and decoder")
    parser.add_argument("--child", help=f"of this script's own: a setting as JSON, {Setting._fields}")
    arguments = parser.parse_args()
    if arguments.child:
        say(json.dumps(measure(Setting(*json.loads(arguments.child)))))
        return 0
    pairs = []
    for batch in arguments.batches:
        plain, cached = (
            Figure(
                *measure_in_child(
                    "benchmarks.gradient_cache", Setting(batch, chunk, arguments.width, arguments.layers), GIVING_BACK
                )
            )
            for chunk in (None, arguments.chunk)
        )
        say(f"batch {batch}: plain {plain.peak:.0f} MB, cached {cached.peak:.0f} MB")
        pairs.append((batch, plain, cached))
    text = page(pairs, arguments)
    with atomic_write(arguments.output / NAME) as path:
        path.write_text(text, encoding="utf-8")
    say(f"\n{text}\nwritten: {arguments.output / NAME}")
    return 0


def measure(setting: Setting) -> Figure:
    """Take a step of 16 queries, so that gradients and libraries are in place, and then the one that is measured."""
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
    return Figure((resident("VmHWM") - before) / MB, inputs / MB, seconds)


def build(setting: Setting) -> tuple[Any, Any]:
    """Build a model of the embedded benchmark's shape (49 patches), with its embedder and losses."""
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
    ids = {
        "image_token_id": VOCABULARY - 3,
        "image_start_token_id": VOCABULARY - 2,
        "image_end_token_id": VOCABULARY - 1,
    }
    model = CIEAModel(CIEAConfig(vision_config=vision, text_config=text, **ids))
    freeze(model, ["vision"])
    embedder = Embedder(model, "extracted", gradient_cache=setting.chunk is not None).train()
    return embedder, Objective({"contrastive": 1.0, "complementary": 0.1})


def make_batch(size: int, chunk: int | None) -> Any:
    """Make a batch of so many queries, reduced queries and captioned images, each with a positive of its own."""
    import torch

    from ciea_hf.training.data.batch import TrainingBatch

    rows = torch.arange(size)
    pairs = torch.stack([rows, rows], dim=1)
    groups = [group for kind in ("query", "reduced", "image") for group in make_groups(kind, size, chunk)]
    return TrainingBatch(
        groups=groups,
        order=torch.arange(3 * size),
        query_ids=[str(i) for i in range(size)],
        reduced=rows,
        documents=rows,
        images=rows,
        targets=pairs,
        relevant=pairs,
    )


def make_groups(kind: str, size: int, chunk: int | None) -> list[Any]:
    """Make the forward passes of one kind of input."""
    import torch

    from ciea_hf.training.data.batch import InputGroup

    groups = []
    for start in range(0, size, chunk or size):
        rows = min(chunk or size, size - start)
        if kind == "image":
            image = [VOCABULARY - 2] + [VOCABULARY - 3] * 49 + [VOCABULARY - 1]
            caption = torch.randint(5, VOCABULARY - 3, (rows, CAPTION_TOKENS))
            ids = torch.cat([torch.tensor([image] * rows), caption], dim=1)
            groups.append(InputGroup(ids, torch.ones_like(ids), torch.randn(rows, 3, 112, 112)))
        else:
            ids = torch.randint(5, VOCABULARY - 3, (rows, QUERY_TOKENS if kind == "query" else REDUCED_TOKENS))
            groups.append(InputGroup(ids, torch.ones_like(ids)))
    return groups


def step(embedder: Any, objective: Any, batch: Any) -> None:
    """Go forward and backward."""
    objective.total(objective(*embedder(batch.groups), batch)).backward()


def page(pairs: list[tuple[int, Figure, Figure]], arguments: Any) -> str:
    """Write the table."""
    import torch

    peaks = [cached.peak for _, _, cached in pairs]
    spread = max(peaks) / min(peaks) - 1
    lines = [
        "# Gradient caching: memory of a step",
        "",
        f"What a step adds to the memory of the process beside the model, its gradients and the batch; chunks of "
        f"{arguments.chunk} rows. T5 of width {arguments.width} with {arguments.layers} + {arguments.layers} layers, "
        f"49 patches, dropout on, CPU, fp32, torch {torch.__version__}. `{' '.join(['python', *sys.argv])}`",
        "",
        "| batch | plain, MB | cached, MB | plain, s | cached, s | batch itself, MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for batch, plain, cached in pairs:
        lines.append(
            f"| {batch} | {plain.peak:.0f} | {cached.peak:.0f} | {plain.seconds:.1f} | {cached.seconds:.1f} | "
            f"{cached.inputs:.0f} |"
        )
    lines += ["", f"With caching, the highest peak is {spread:.0%} above the lowest.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
