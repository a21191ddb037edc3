"""Trainings of several variants and seeds on one budget, each of which leaves a record."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.common.files import say
from benchmarks.common.records import Record, first_ranks, read_records, rounded_metrics
from benchmarks.common.variants import Variant, in_order, settings
from ciea_hf.demo.launching import launch_training
from ciea_hf.evaluation import evaluate
from ciea_hf.loading import load_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ciea_hf.data import RetrievalDataset

STAGE = "in_batch"


@dataclass(frozen=True)
class Runs:
    """The runs of one budget.

    Attributes:
        variants: Name to variant.
        steps: Of training, after the warm-up.
        warm_up_steps: Of the warm-up; the preset's if None.
        folder: Where records are kept.
        work: Where models are trained.
        test: What they are evaluated on.
        material: Options and values that name data and towers, where they are not the preset's: they come before the
            variant's and are no part of the settings, since paths differ from machine to machine.
        made_of: What these paths hold, for the settings.
    """

    variants: Mapping[str, Variant]
    steps: int
    warm_up_steps: int | None
    folder: Path
    work: Path
    test: RetrievalDataset
    material: tuple[str, ...] = ()
    made_of: Mapping[str, str] | None = None

    def told(self, variant: Variant) -> dict[str, dict[str, object]]:
        """What a variant's stages are told, whatever the seed."""
        given = settings(variant, self.steps, self.warm_up_steps)
        if self.made_of is None:
            return given
        named = {option.removeprefix("--").replace("-", "_") for option in self.material[::2]}
        stages = {stage: {n: v for n, v in values.items() if n not in named} for stage, values in given.items()}
        return {**stages, "material": dict(self.made_of)}

    def records(self) -> list[Record]:
        """The finished runs that were told and evaluated as runs would be now; others are left aside."""
        found = [record for record in read_records(self.folder) if record.variant in self.variants]
        valid = [record for record in found if self._is_current(record)]
        if len(valid) < len(found):
            say(f"left aside: {len(found) - len(valid)} run(s) with other settings or on other data")
        return valid

    def _is_current(self, record: Record) -> bool:
        told = json.loads(json.dumps(self.told(self.variants[record.variant])))
        return record.data == self.test.fingerprint and record.settings == told

    def finish(self, chosen: Sequence[Variant], seeds: int, report: Callable[[], None]) -> None:
        """Run what has no record yet, and report after each run, or once if there is none to do."""
        finished = {(record.variant, record.seed) for record in self.records()}
        todo = [w for w in in_order(chosen, seeds) if (w[0].name, w[1]) not in finished]
        for number, (variant, seed) in enumerate(todo, start=1):
            say(f"run {number} of {len(todo)}: {variant.name}, seed {seed}")
            record = self.run(variant, seed)
            say(f"{variant.name}, seed {seed}: MRR@10 of image queries {record.metrics['image']['mrr@10']:.4f}")
            report()
        if not todo:
            report()

    def run(self, variant: Variant, seed: int) -> Record:
        """Train and evaluate a variant, or go on with it, and write its record."""
        told = self.told(variant)
        known = {"warm_up": told["warm_up"], "material": self.made_of} if self.made_of else told["warm_up"]
        warm = self._train("warm-up-" + variant.family, seed, known, variant.warm_up(self.warm_up_steps))
        start = ("--model", str(warm / "warm_up" / "best"))
        folder = self._train(variant.name, seed, told, (*variant.training(self.steps), *start))
        stage = folder / STAGE
        result = evaluate(load_encoder(str(stage / "best")), self.test, content=variant.content)
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
        record.write(self.folder)
        shutil.rmtree(stage / "checkpoints", ignore_errors=True)
        return record

    def repeat(self, name: str, data: RetrievalDataset, documents: str | None = None) -> list[Record]:
        """Evaluate the finished runs under another condition, each of which leaves a record in the folder of its name.

        A run that was trained on another machine is left aside unless its record is there.

        Args:
            name: Of the condition.
            data: Other queries.
            documents: What is seen of a document; what the variant sees if None.
        """
        folder, found = self.folder / name, []
        known = {(record.variant, record.seed): record for record in read_records(folder)}
        for run in self.records():
            before = known.get((run.variant, run.seed))
            if before and before == replace(run, data=data.fingerprint, metrics=before.metrics, ranks=before.ranks):
                found.append(before)
                continue
            model = self._folder(run.variant, run.seed, run.settings) / STAGE / "best"
            if not model.is_dir():
                say(f"left aside: {run.variant}, seed {run.seed}, {name}: there is no model at {model}")
                continue
            chosen = documents or self.variants[run.variant].content
            result = evaluate(load_encoder(str(model)), data, content=chosen)
            ranks = first_ranks(result.run, data)
            found.append(replace(run, data=data.fingerprint, metrics=rounded_metrics(result), ranks=ranks))
            found[-1].write(folder)
            say(f"{run.variant}, seed {run.seed}, {name}: {found[-1].metrics['image']['mrr@10']:.4f}")
        return found

    def _train(self, name: str, seed: int, told: object, arguments: Sequence[str]) -> Path:
        arguments = (*self.material, *arguments, "--seed", str(seed), "--trackers=")
        return launch_training(self._folder(name, seed, told), arguments)

    def _folder(self, name: str, seed: int, told: object) -> Path:
        """Where something is trained; the name changes with what the training is told."""
        mark = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
        return self.work / f"{name}-seed{seed}-{mark}"

    def configuration(self, records: Sequence[Record]) -> dict[str, object]:
        """What the runs depended on, for the record beside a table."""
        names = [name for name in self.variants if any(record.variant == name for record in records)]
        return {
            "steps": self.steps,
            "seeds": {name: sorted(record.seed for record in records if record.variant == name) for name in names},
            "settings": {name: self.told(self.variants[name]) for name in names},
            "trained_at": sorted({str(record.revision) for record in records}),
        }
