"""All stages on the embedded benchmark, and the dev metric after each, over several seeds.

  python -m benchmarks.stages                               # 3 seeds, the preset's steps
  python -m benchmarks.stages --seeds 1 --steps 20          # to see that it runs
  python -m benchmarks.stages -- --hard_negatives.learning-rate 5e-4  # what follows -- goes to the training

A run that is finished is left as it is, and one that was interrupted goes on.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.files import make_parser, say
from ciea_hf.demo.launching import launch_training
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "stages.md"
STAGES = ("warm_up", "align", "in_batch", "mine", "hard_negatives")
METRICS = ("mrr@10", "mrr@10/image", "mrr@10/text", "ndcg@10", "recall@1", "recall@10")
WORK = Path("runs/stages")

Metrics = dict[str, float]
Table = dict[str, list[Metrics]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the page and show it; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, told = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--steps", type=int, help="of every stage (default: the preset's)")
    parser.add_argument("--work", type=Path, default=WORK, help=f"where the runs are written (default: {WORK})")
    parsed = parser.parse_args(given)
    if parsed.steps is not None:
        told = ["--max-steps", str(parsed.steps), *told]
    table: Table = {}
    for seed in range(parsed.seeds):
        folder = launch_training(
            parsed.work / f"seed-{seed}", ["--stage", ",".join(STAGES), "--seed", str(seed), *told]
        )
        for stage, metrics in read_metrics(folder).items():
            table.setdefault(stage, []).append(metrics)
            say(f"seed {seed}, {stage}: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    text = page(table, told)
    with atomic_write(parsed.output / NAME) as path:
        path.write_text(text, encoding="utf-8")
    say(f"\n{text}\nwritten: {parsed.output / NAME}")
    return 0


def read_metrics(folder: Path) -> dict[str, Metrics]:
    """Read the dev metrics of each stage's best model."""
    results = {stage: json.loads((folder / stage / "result.json").read_text(encoding="utf-8")) for stage in STAGES}
    return {
        stage: {name: result["metrics"][name] for name in METRICS if name in result["metrics"]}
        for stage, result in results.items()
        if "metrics" in result
    }


def page(table: Table, told: Sequence[str]) -> str:
    """Write means and standard deviations by stage, and who beat whom by seed."""
    seeds = len(next(iter(table.values())))
    lines = [
        "# Stages: the dev metric after each",
        "",
        f"The embedded benchmark, dev split, preset `demo`{' with `' + ' '.join(told) + '`' if told else ''}, {seeds} "
        "seed(s): mean and standard deviation. Each stage starts from the best model of the one before.",
        "",
        "| stage | " + " | ".join(METRICS) + " |",
        "| :--- |" + " ---: |" * len(METRICS),
    ]
    for stage, runs in table.items():
        cells = [_cell([run[name] for run in runs]) if name in runs[0] else "" for name in METRICS]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    lines.append("")
    for better, worse in (("in_batch", "align"), ("hard_negatives", "in_batch")):
        gains = [a[METRICS[0]] - b[METRICS[0]] for a, b in zip(table[better], table[worse], strict=True)]
        shown = ", ".join(f"{gain:+.4f}" for gain in gains)
        lines.append(f"- {better} over {worse}, {METRICS[0]} by seed: {shown}")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
