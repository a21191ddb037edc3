"""What each part of CIEA brings, on the embedded benchmark, several seeds, one budget.

  python benchmarks/ablation.py                              # goes on where the last call stopped
  python benchmarks/ablation.py --only marvel ciea --seeds 3
  python benchmarks/ablation.py --report                     # draws the table from what is there, trains nothing

Every finished run leaves a small JSON file, and the table is drawn again after each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.ablation_report import draw_chart, make_page, make_rows
from common.files import make_parser, say, write_result
from common.records import Record, first_ranks, read_records, rounded_metrics
from common.variants import VARIANTS, Variant, choose, in_order, settings

from ciea_hf.commands.common import load_dataset, load_encoder
from ciea_hf.demo.launching import launch_training
from ciea_hf.evaluation import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.data import RetrievalDataset

WORK = Path("runs/ablation")


class Ablation:
    """The runs of one budget.

    Args:
        steps: Of training, after the warm-up.
        warm_up_steps: Of the warm-up; the preset's if None.
        output: Where results are written.
        work: Where models are trained.
        test: What they are evaluated on.
    """

    def __init__(self, steps: int, warm_up_steps: int | None, output: Path, work: Path, test: RetrievalDataset) -> None:
        self.steps = steps
        self.warm_up_steps = warm_up_steps
        self.output = output
        self.records_folder = output / "ablation" / f"{steps}-steps"
        self.work = work
        self.test = test

    def records(self) -> list[Record]:
        """The finished runs that were told and evaluated as runs would be now; others are left aside."""
        found = [record for record in read_records(self.records_folder) if record.variant in VARIANTS]
        valid = [record for record in found if self._is_current(record)]
        if len(valid) < len(found):
            say(f"left aside: {len(found) - len(valid)} run(s) with other settings or on other data")
        return valid

    def _is_current(self, record: Record) -> bool:
        told = settings(VARIANTS[record.variant], self.steps, self.warm_up_steps)
        return record.data == self.test.fingerprint and record.settings == json.loads(json.dumps(told))

    def run(self, variant: Variant, seed: int) -> Record:
        """Train and evaluate a variant, or go on with it, and write its record."""
        told = settings(variant, self.steps, self.warm_up_steps)
        warm = self._train("warm-up-" + variant.family, seed, told["warm_up"], variant.warm_up(self.warm_up_steps))
        start = ("--model", str(warm / "warm_up" / "best"))
        folder = self._train(variant.name, seed, told, (*variant.training(self.steps), *start))
        result = evaluate(load_encoder(str(folder / "in_batch" / "best")), self.test, documents=variant.documents)
        stage = folder / "in_batch"
        record = Record(
            variant=variant.name,
            seed=seed,
            steps=self.steps,
            settings=told,
            data=self.test.fingerprint,
            revision=json.loads((stage / "run.json").read_text(encoding="utf-8"))["git_revision"],
            training_seconds=round(json.loads((stage / "result.json").read_text(encoding="utf-8"))["seconds"], 1),
            metrics=rounded_metrics(result),
            ranks=first_ranks(result.run, self.test),
        )
        record.write(self.records_folder)
        shutil.rmtree(stage / "checkpoints", ignore_errors=True)
        return record

    def _train(self, name: str, seed: int, told: object, arguments: Sequence[str]) -> Path:
        """Train in a folder whose name changes with what the training is told."""
        mark = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
        arguments = (*arguments, "--seed", str(seed), "--trackers=")
        return launch_training(self.work / f"{name}-seed{seed}-{mark}", arguments)

    def report(self) -> None:
        """Draw the table and the chart from whatever is there."""
        records = self.records()
        if not records:
            say(f"no finished run in {self.records_folder}: there is no table to draw")
            return
        rows = make_rows(records)
        names = [name for name in VARIANTS if any(record.variant == name for record in records)]
        told = {name: settings(VARIANTS[name], self.steps, self.warm_up_steps) for name in names}
        seeds = {name: sorted(record.seed for record in records if record.variant == name) for name in names}
        revisions = sorted({str(record.revision) for record in records})
        content = {"steps": self.steps, "seeds": seeds, "settings": told, "trained_at": revisions}
        page = make_page(rows, self.steps, len(records[0].ranks))
        write_result(self.output, "ablation", page, draw_chart(rows), content, self.test)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ablation, or go on with it; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each variant (default: 5)")
    parser.add_argument("--steps", type=int, default=400, help="steps of each training (default: 400)")
    parser.add_argument("--warm-up-steps", type=int, help="steps of each warm-up (default: the preset's)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"these variants: {', '.join(VARIANTS)}")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--work", type=Path, default=WORK, help=f"where models are trained (default: {WORK})")
    parsed = parser.parse_args(arguments)
    try:
        variants = choose(parsed.only)
    except ValueError as error:
        parser.error(str(error))
    test = load_dataset("demo", "test")
    ablation = Ablation(parsed.steps, parsed.warm_up_steps, parsed.output, parsed.work, test)
    finished = {(record.variant, record.seed) for record in ablation.records()}
    todo = [] if parsed.report else [w for w in in_order(variants, parsed.seeds) if (w[0].name, w[1]) not in finished]
    for number, (variant, seed) in enumerate(todo, start=1):
        say(f"run {number} of {len(todo)}: {variant.name}, seed {seed}")
        record = ablation.run(variant, seed)
        say(f"{variant.name}, seed {seed}: MRR@10 of image queries {record.metrics['image']['mrr@10']:.4f}")
        ablation.report()
    if not todo:
        ablation.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
