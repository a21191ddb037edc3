"""Training runs of several variants and seeds with the same budget; each finished run is saved as a record."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.common.files import say
from benchmarks.common.records import Record, first_ranks, read_records, rounded_metrics, training_device
from benchmarks.common.variants import Variant, stage_overrides, training_order
from ciea_hf.demo.launching import launch_training
from ciea_hf.evaluation import evaluate
from ciea_hf.loading import load_encoder
from ciea_hf.retrieval import DocumentView
from ciea_hf.utils import short_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation import EvaluationResult

    Measures = Callable[[Any, RetrievalDataset, EvaluationResult], dict[str, float]]

STAGE = "in_batch"


@dataclass(frozen=True)
class Runs:
    """Training runs with the same budget.

    Attributes:
        variants: Variants by name.
        steps: Training steps after the warm-up.
        warm_up_steps: Steps of the warm-up; those of the preset if None.
        folder: Folder of the records.
        work: Folder of the trained models.
        test: Evaluation data.
        data_args: Training arguments that name data and models other than those of the preset, as pairs of option and
            value. They precede the arguments of a variant. Since their values are local paths, they are not recorded.
        provenance: Fingerprints of the files that `data_args` names. They are recorded instead of the paths.
        measures: Further measures of a trained model, given the model, the evaluation data and the result of the
            evaluation. They are recorded beside its metrics.
    """

    variants: Mapping[str, Variant]
    steps: int
    warm_up_steps: int | None
    folder: Path
    work: Path
    test: RetrievalDataset
    data_args: tuple[str, ...] = ()
    provenance: Mapping[str, str] | None = None
    measures: Measures | None = None

    def overrides(self, variant: Variant) -> dict[str, dict[str, object]]:
        """Return the options of a variant's stages that differ from the training's defaults, as they are recorded.

        With a provenance, an entry `data_args` contains it, and the options of `data_args` are omitted from the stages.
        """
        stages = stage_overrides(variant, self.steps, self.warm_up_steps)
        if self.provenance is None:
            return stages
        local = {option.removeprefix("--").replace("-", "_") for option in self.data_args[::2]}
        recorded: dict[str, dict[str, object]] = {}
        for stage, values in stages.items():
            recorded[stage] = {name: value for name, value in values.items() if name not in local}
        return {**recorded, "data_args": dict(self.provenance)}

    def records(self) -> list[Record]:
        """Read the records of finished runs, except those with other options or other evaluation data."""
        found = [record for record in read_records(self.folder) if record.variant in self.variants]
        valid = [record for record in found if self._is_current(record)]
        if len(valid) < len(found):
            say(f"skipped {len(found) - len(valid)} run(s) with other options or other data")
        return valid

    def _is_current(self, record: Record) -> bool:
        # The overrides take the same detour through JSON as the record's, which turns tuples into lists.
        overrides = json.loads(json.dumps(self.overrides(self.variants[record.variant])))
        return record.data == self.test.fingerprint and record.overrides == overrides

    def finish(self, chosen: Sequence[Variant], seeds: int, report: Callable[[], None]) -> None:
        """Run all variants and seeds without a record.

        Args:
            chosen: The variants.
            seeds: Number of seeds of each variant.
            report: Callback after each run, called once if all runs are finished.
        """
        finished = {(record.variant, record.seed) for record in self.records()}
        pending = []
        for variant, seed in training_order(chosen, seeds):
            if (variant.name, seed) not in finished:
                pending.append((variant, seed))
        for number, (variant, seed) in enumerate(pending, start=1):
            say(f"run {number} of {len(pending)}: {variant.name}, seed {seed}")
            record = self.run(variant, seed)
            say(f"{variant.name}, seed {seed}: MRR@10 of image queries {record.metrics['image']['mrr@10']:.4f}")
            report()
        if not pending:
            report()

    def run(self, variant: Variant, seed: int) -> Record:
        """Train and evaluate a variant, and write its record. An interrupted training continues."""
        overrides = self.overrides(variant)
        provenance = {"data_args": dict(self.provenance)} if self.provenance else {}
        *shared, last = stages = variant.stages(self.steps, self.warm_up_steps)
        start: tuple[str, ...] = ()
        for number, name in enumerate(shared, start=1):
            options = {**{stage: overrides[stage] for stage in shared[:number]}, **provenance}
            title = f"{name.replace('_', '-')}-{variant.family}"
            if name == STAGE:
                title = str(variant.continues)
            folder = self._train(title, seed, options, (*stages[name], *start), variant.preset)
            start = ("--model", str(folder / name / "best"))
        folder = self._train(variant.name, seed, overrides, (*stages[last], *start), variant.preset)
        stage = folder / last
        model = load_encoder(str(stage / "best"))
        result = evaluate(model, self.test, content=variant.content)
        record = Record(
            variant=variant.name,
            seed=seed,
            steps=self.steps,
            overrides=overrides,
            data=self.test.fingerprint,
            revision=json.loads((stage / "run.json").read_text(encoding="utf-8"))["git_revision"],
            training_seconds=round(json.loads((stage / "result.json").read_text(encoding="utf-8"))["seconds"], 1),
            metrics=rounded_metrics(result),
            ranks=first_ranks(result.run, self.test),
            measures=self.measures(model, self.test, result) if self.measures else {},
            device=training_device(),
        )
        record.write(self.folder)
        shutil.rmtree(stage / "checkpoints", ignore_errors=True)
        return record

    def repeat(self, name: str, data: RetrievalDataset, content: str | DocumentView | None = None) -> list[Record]:
        """Evaluate the finished runs under another condition.

        Each evaluation is saved as a record in the subfolder `name` and is not repeated. A run whose model is not on
        this machine is skipped unless this record exists.

        Args:
            name: Name of the condition.
            data: Evaluation data of the condition.
            content: Content of documents; that of the variant if None. A view of documents is only shown to variants
                that are evaluated on whole documents.

        Returns:
            Records of the condition.
        """
        folder = self.folder / name
        existing = {(record.variant, record.seed): record for record in read_records(folder)}
        records = []
        for run in self.records():
            known = existing.get((run.variant, run.seed))
            if known and known == replace(run, data=data.fingerprint, metrics=known.metrics, ranks=known.ranks):
                records.append(known)
                continue
            if isinstance(content, DocumentView) and self.variants[run.variant].content != "full":
                continue
            stage = [*self.variants[run.variant].stages(self.steps)][-1]
            model = self._folder(run.variant, run.seed, run.overrides) / stage / "best"
            if not model.is_dir():
                say(f"skipped {run.variant}, seed {run.seed}, {name}: no model found at {model}")
                continue
            shown = content or self.variants[run.variant].content
            result = evaluate(load_encoder(str(model)), data, content=shown)
            ranks = first_ranks(result.run, data)
            record = replace(run, data=data.fingerprint, metrics=rounded_metrics(result), ranks=ranks)
            record.write(folder)
            records.append(record)
            say(f"{run.variant}, seed {run.seed}, {name}: {record.metrics['image']['mrr@10']:.4f}")
        return records

    def _train(
        self, name: str, seed: int, overrides: Mapping[str, object], arguments: Sequence[str], preset: str
    ) -> Path:
        arguments = (*self.data_args, *arguments, "--seed", str(seed), "--trackers=")
        return launch_training(self._folder(name, seed, overrides), arguments, preset)

    def _folder(self, name: str, seed: int, overrides: Mapping[str, object]) -> Path:
        """Return the folder of a training. Its name contains a hash of the overrides, so that changes start afresh."""
        digest = short_hash(json.dumps(overrides, sort_keys=True), 8)
        return self.work / f"{name}-seed{seed}-{digest}"

    def configuration(self, records: Sequence[Record]) -> dict[str, object]:
        """Return the conditions of the runs, to be saved next to the table."""
        seeds: dict[str, list[int]] = {}
        for name in self.variants:
            found = sorted(record.seed for record in records if record.variant == name)
            if found:
                seeds[name] = found
        return {
            "steps": self.steps,
            "seeds": seeds,
            "overrides": {name: self.overrides(self.variants[name]) for name in seeds},
            "training_revisions": sorted({str(record.revision) for record in records}),
        }
