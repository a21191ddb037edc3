"""Dev metrics after each training stage on the embedded benchmark, over several seeds.

Finished runs are reused, and interrupted runs continue. Arguments after `--` are passed to the training.

Examples:
  python -m benchmarks.stages                       # 3 seeds, steps of the preset
  python -m benchmarks.stages --seeds 1 --steps 20
  python -m benchmarks.stages -- --hard_negatives.learning-rate 5e-4
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.ablation_report import spread
from benchmarks.common.files import make_parser, say, write_page
from benchmarks.common.variants import PRESET
from ciea_hf.demo.launching import launch_training
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "stages.md"
STAGES = ("warm_up", "align", "in_batch", "mine", "hard_negatives")
METRICS = ("mrr@10", "mrr@10/image", "mrr@10/text", "ndcg@10", "recall@1", "recall@10")
COMPARISONS = (("in_batch", "align"), ("hard_negatives", "in_batch"))
WORK = Path("runs/stages")

Metrics = dict[str, float]
Table = dict[str, list[Metrics]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train all seeds and write the result page.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    overrides: list[str] = []
    if "--" in arguments:
        separator = arguments.index("--")
        arguments, overrides = arguments[:separator], arguments[separator + 1 :]
    parser = make_parser("stages", __doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--steps", type=int, help="steps of each stage (default: those of the preset)")
    parser.add_argument("--work", type=Path, default=WORK, help=f"folder of the trained models (default: {WORK})")
    parsed = parser.parse_args(arguments)
    if parsed.steps is not None:
        overrides = ["--max-steps", str(parsed.steps), *overrides]
    table: Table = {}
    for seed in range(parsed.seeds):
        training = ["--stage", ",".join(STAGES), "--seed", str(seed), *overrides]
        folder = launch_training(parsed.work / f"seed-{seed}", training, PRESET)
        for stage, metrics in read_metrics(folder).items():
            table.setdefault(stage, []).append(metrics)
            say(f"seed {seed}, {stage}: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    write_page(parsed.output / NAME, page(table, overrides))
    return 0


def read_metrics(folder: Path) -> dict[str, Metrics]:
    """Read the dev metrics of the best model of each stage.

    Args:
        folder: Output folder of a training.

    Returns:
        Metrics by stage. Stages without metrics are omitted.
    """
    metrics = {}
    for stage in STAGES:
        result = json.loads((folder / stage / "result.json").read_text(encoding="utf-8"))
        if "metrics" in result:
            metrics[stage] = {name: result["metrics"][name] for name in METRICS if name in result["metrics"]}
    return metrics


def page(table: Table, overrides: Sequence[str]) -> str:
    """Generate the result page.

    Args:
        table: Metrics of all seeds by stage.
        overrides: Training arguments in addition to the preset.

    Returns:
        The page in Markdown: mean and standard deviation by stage, and the gains of later stages by seed.
    """
    rows = [["stage", *METRICS]]
    for stage, runs in table.items():
        cells = []
        for name in METRICS:
            values = [run[name] for run in runs if name in run]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(spread(statistics.mean(values), deviation) if values else "")
        rows.append([stage, *cells])
    gains = []
    for better, worse in COMPARISONS:
        pairs = zip(table[better], table[worse], strict=True)
        by_seed = ", ".join(f"{after[METRICS[0]] - before[METRICS[0]]:+.4f}" for after, before in pairs)
        gains.append(f"- {better} minus {worse}, {METRICS[0]} by seed: {by_seed}")
    extra = f" with `{' '.join(overrides)}`" if overrides else ""
    seeds = len(next(iter(table.values())))
    return f"""# Dev metrics by training stage

Embedded benchmark, dev split, preset `demo`{extra}, {seeds} seed(s).
Mean ± standard deviation over seeds. Each stage starts from the best model of the previous stage.

{text_table(rows)}

{chr(10).join(gains)}
"""


if __name__ == "__main__":
    sys.exit(main())
