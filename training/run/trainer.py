"""Training loop of one stage, with Accelerate."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader

from ciea_hf.training.data.sampler import ResumableBatchSampler
from ciea_hf.training.distributed import gather_objects
from ciea_hf.training.run.accelerator import full_tensor, is_sharded
from ciea_hf.training.run.checkpoint import Checkpoints, Progress
from ciea_hf.training.run.guard import Guard
from ciea_hf.training.run.optim import (
    alignment_groups,
    build_optimizer,
    build_schedule,
    clamp_logit_scale,
    clip_gradients,
    parameter_groups,
    resume_schedule,
)
from ciea_hf.training.run.preemption import Preempted, Preemption
from ciea_hf.training.run.step_values import QUERIES, TERMINATED, StepValues
from ciea_hf.training.run.tracking import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from accelerate import Accelerator

    from ciea_hf.training.config import TrainingConfig
    from ciea_hf.training.data.batch import TrainingBatch
    from ciea_hf.training.data.collator import Collator
    from ciea_hf.training.data.examples import Examples
    from ciea_hf.training.loss.embedder import Embedder
    from ciea_hf.training.loss.objective import Objective
    from ciea_hf.training.loss.word_alignment import WordAligner, WordObjective
    from ciea_hf.training.run.dev_evaluator import DevEvaluator
    from ciea_hf.training.run.word_evaluator import WordEvaluator

logger = logging.getLogger(__name__)


class Trainer:
    """Trains one stage.

    Args:
        config: Configuration of the stage.
        embedder: Module to train, after `freeze`.
        objective: Losses.
        examples: Training examples.
        collator: Collator of the examples.
        accelerator: Accelerator of the run.
        folder: Folder of the stage, which receives checkpoints and the loss log.
        dev: Evaluator on the dev split; `None` for no evaluation.

    Attributes:
        save_best: Function that saves the best model so far, given its dev metrics; called by every process.
        check_best: Function that raises `ValueError` if the best model so far is damaged; called by every process.
    """

    def __init__(
        self,
        config: TrainingConfig,
        embedder: Embedder | WordAligner,
        objective: Objective | WordObjective,
        examples: Examples,
        collator: Collator,
        accelerator: Accelerator,
        folder: Path,
        dev: DevEvaluator | WordEvaluator | None,
    ) -> None:
        self.config = config
        self.objective = objective
        self.examples = examples
        self.collator = collator
        self.accelerator = accelerator
        self.folder = folder
        self.dev = dev
        self.save_best: Callable[[dict[str, float]], None] = lambda _metrics: None
        self.check_best: Callable[[], None] = lambda: None
        accelerator.gradient_accumulation_steps = config.gradient_accumulation_steps
        if config.aligns_words:
            groups = alignment_groups(embedder.model, config.word_learning_rate)
        else:
            rates = (config.learning_rate, config.new_learning_rate, config.weight_decay)
            groups = parameter_groups(embedder.model, *rates)
        fused = accelerator.scaler is None and not is_sharded(accelerator)  # a scaler must see that it skips a step
        optimizer = build_optimizer(groups, config.adam_betas, config.adam_epsilon, fused)
        self.model = embedder.model
        self.embedder, self.optimizer = accelerator.prepare(embedder, optimizer)
        sampler = ResumableBatchSampler(len(examples), config.batch_size, config.seed)
        per_epoch = max(sampler.batches_per_epoch // config.gradient_accumulation_steps, 1)
        self.max_steps = config.max_steps or config.epochs * per_epoch
        self.schedule = build_schedule(self.optimizer, config.warmup_steps, self.max_steps)
        self.guard = Guard(embedder.model, examples, folder, accelerator.process_index)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep_checkpoints, accelerator)
        self.reporter = Reporter(config, accelerator, folder / "losses.jsonl", self.max_steps)
        self.progress = Progress(processes=accelerator.num_processes)
        self._preemption = Preemption()

    def run(self, resume: bool = False) -> Progress:
        """Train until the last step, or until early stopping.

        Args:
            resume: Whether to continue from the last checkpoint, if it exists.

        Returns:
            Progress of the stage.

        Raises:
            FloatingPointError: If the loss, its gradient or a weight is not finite; the batch's ids are saved.
            ValueError: If all checkpoints are damaged, or no example can be read.
            Preempted: After a SIGTERM, once a checkpoint has been saved.
        """
        if resume and (loaded := self.checkpoints.load_last()) is not None:
            self._continue_from(loaded)
        with self.reporter.opened(self.progress.step), self._preemption.watched():
            self._loop()
        return self.progress

    def _continue_from(self, loaded: Progress) -> None:
        if loaded.best_step is not None:
            self.check_best()
        processes = self.progress.processes
        if loaded.processes != processes:
            logger.warning("the run continues with %d process(es) instead of %d: dropout differs from a run without "
                           "interruption", processes, loaded.processes)  # fmt: skip
        self.progress = dataclasses.replace(loaded, processes=processes)
        resume_schedule(self.schedule, loaded.scheduled)
        logger.info("stage %s continues from step %d", self.config.stage, loaded.step)

    def _loop(self) -> None:
        """Evaluate if due, take a step, save a checkpoint if due.

        The checkpoint of a step is saved before its evaluation, so that a run killed during the evaluation repeats it.
        """
        batches = self._batches()
        self.embedder.train()
        while True:
            if self._evaluation_is_due():
                self._evaluate()
            if self.progress.step >= self.max_steps or self._exhausted():
                break
            terminated = self._step(batches)
            if terminated or self.progress.step % self.config.save_steps == 0:
                self._checkpoint()
            if terminated:
                self._preempt()
        self._share_broken()
        if self._terminated_anywhere():
            self._checkpoint()
            self._preempt()

    def _step(self, batches: Iterator[TrainingBatch]) -> bool:
        """Take an optimiser step; return whether any process has received a SIGTERM."""
        start = time.perf_counter()
        values = self._backward(batches)
        gradient_norm = clip_gradients(self.accelerator, self.embedder.parameters(), self.config.max_grad_norm)
        scaled = self.accelerator.scaler is not None
        losses = values.read(gradient_norm, self.guard, self.progress.step + 1, scaled)
        terminated, queries, norm = losses.pop(TERMINATED) > 0, losses.pop(QUERIES), losses.pop("grad_norm")
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
            self.progress.scheduled += 1
        clamp_logit_scale(self.model.logit_scale)
        self.progress.step += 1
        self.progress.queries += queries * len(values.batches)
        self.guard.check_data(self.progress.step, queries)
        seconds = time.perf_counter() - start
        self.progress.seconds += seconds
        self.reporter.step(losses)
        if self.reporter.logs(self.progress.step):
            record = {
                "logit_scale": math.exp(full_tensor(self.model.logit_scale).item()),
                "grad_norm": norm,
                "learning_rate": float(max(self.schedule.get_last_lr())),
            }
            self.reporter.log_step(self.progress.step, {**losses, **record}, seconds)
        return terminated

    def _backward(self, batches: Iterator[TrainingBatch]) -> StepValues:
        """Accumulate the gradients of a step's batches, and return their values."""
        values = StepValues()
        for _ in range(self.config.gradient_accumulation_steps):
            batch = next(batches)
            with self.accelerator.accumulate(self.embedder):
                losses = self.objective(*self.embedder(batch.groups), batch)
                total = self.objective.total(losses)
                values.add(batch, {**losses, "loss": total}, self._preemption.requested)
                if total.requires_grad:  # otherwise no trained parameter takes part
                    self.accelerator.backward(total)
        return values

    def _evaluation_is_due(self) -> bool:
        step, history = self.progress.step, self.progress.history
        if step == 0 or (history and history[-1]["step"] == step):
            return False
        return step >= self.max_steps or (self.dev is not None and step % self.config.eval_steps == 0)

    def _evaluate(self) -> None:
        self._share_broken()
        self.guard.check_weights(self.progress.step)
        self.guard.check_progress(self.progress)
        if self.dev is None:
            self.save_best({})
            return
        # Unwrapped: DDP synchronises buffers in every pass, and processes differ in their number of passes.
        sharded = is_sharded(self.accelerator)
        metrics = self.dev(self.embedder if sharded else self.accelerator.unwrap_model(self.embedder))
        step, progress = self.progress.step, self.progress
        progress.history.append({"step": step, **metrics})
        score = metrics[self.dev.metric]
        if not math.isfinite(score):
            raise FloatingPointError(f"{self.dev.metric} of the dev split is {score} after step {step}")
        best = progress.best_metric is None or score > progress.best_metric
        if best:
            progress.best_metric, progress.best_step, progress.evaluations_without_gain = score, step, 0
            self.save_best(metrics)
        else:
            progress.evaluations_without_gain += 1
        self.reporter.evaluation(step, metrics, self.dev.metric, best)

    def _exhausted(self) -> bool:
        limit = self.config.early_stopping
        return limit is not None and self.progress.evaluations_without_gain >= limit

    def _checkpoint(self) -> None:
        self._share_broken()
        self.guard.check_weights(self.progress.step)
        self.checkpoints.save(self.progress)

    def _terminated_anywhere(self) -> bool:
        return any(gather_objects(self._preemption.requested))

    def _preempt(self) -> None:
        raise Preempted(f"stopped by SIGTERM; step {self.progress.step} is saved, --resume continues from it")

    def _batches(self) -> Iterator[TrainingBatch]:
        config, accelerator = self.config, self.accelerator
        sampler = ResumableBatchSampler(
            len(self.examples),
            config.batch_size,
            config.seed,
            start=self.progress.step * config.gradient_accumulation_steps,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        loader = DataLoader(
            self.examples,
            batch_sampler=sampler,
            collate_fn=self.collator,
            num_workers=config.workers,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator().manual_seed(config.seed),  # leaves the run's random state unchanged
        )
        for batch in loader:
            for identifier in batch.broken.keys() - self.progress.broken.keys():
                logger.warning("document %r has a broken image: %s", identifier, batch.broken[identifier])
            self.progress.broken |= batch.broken
            yield batch.to(accelerator.device)

    def _share_broken(self) -> None:
        """Merge the broken images found by all processes."""
        merged: dict[str, str] = {}
        for broken in gather_objects(self.progress.broken):
            merged |= broken
        self.progress.broken = dict(sorted(merged.items()))
