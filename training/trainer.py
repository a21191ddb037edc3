"""The training loop of one stage, on Accelerate."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ciea_hf.training.checkpoint import Checkpoints, LossLog, Progress
from ciea_hf.training.distributed import gather_sizes
from ciea_hf.training.objective import mean_over_processes
from ciea_hf.training.optim import (
    build_optimizer,
    build_schedule,
    clamp_logit_scale,
    parameter_groups,
    resume_schedule,
)
from ciea_hf.training.sampler import GlobalBatches
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from accelerate import Accelerator

    from ciea_hf.training.batch import TrainingBatch
    from ciea_hf.training.collator import Collator
    from ciea_hf.training.config import TrainingConfig
    from ciea_hf.training.embedder import Embedder
    from ciea_hf.training.examples import Examples
    from ciea_hf.training.objective import Objective
    from ciea_hf.training.ranking import DevRanking

logger = logging.getLogger(__name__)

METRIC = "mrr@10"


class Preempted(Exception):  # noqa: N818 (an order from outside, not an error)
    """Raised after the checkpoint that a SIGTERM asks for has been written."""


class Trainer:
    """Trains one stage.

    Args:
        config: Of the stage.
        embedder: What is trained, frozen parts frozen.
        objective: The losses.
        examples: What is trained on.
        collator: Makes batches of them.
        accelerator: Places and wraps everything.
        folder: Of the stage: checkpoints and the loss log are written here.
        dev: Ranks the dev set; None for no evaluation.
        save_best: Saves the model as the best one so far; called by every process.
    """

    def __init__(
        self,
        config: TrainingConfig,
        embedder: Embedder,
        objective: Objective,
        examples: Examples,
        collator: Collator,
        accelerator: Accelerator,
        folder: Path,
        dev: DevRanking | None,
        save_best: Callable[[dict[str, float]], None],
    ) -> None:
        self.config = config
        self.objective = objective
        self.examples = examples
        self.collator = collator
        self.accelerator = accelerator
        self.folder = folder
        self.dev = dev
        self.save_best = save_best
        rates = (config.learning_rate, config.new_learning_rate, config.weight_decay)
        optimizer = build_optimizer(parameter_groups(embedder.model, *rates), config.adam_betas, config.adam_epsilon)
        self.model = embedder.model
        self.embedder, self.optimizer = accelerator.prepare(embedder, optimizer)
        sampler = GlobalBatches(len(examples), config.batch_size, config.seed)
        per_epoch = max(sampler.batches_per_epoch // config.gradient_accumulation_steps, 1)
        self.max_steps = config.max_steps or config.epochs * per_epoch
        self.schedule = build_schedule(self.optimizer, config.warmup_steps, self.max_steps)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep_checkpoints, accelerator)
        self.log = LossLog(folder / "losses.jsonl")
        self.progress = Progress()
        self.broken: set[str] = set()
        self._terminated = False

    def run(self, resume: bool = False) -> Progress:
        """Train to the end, or until the dev metric no longer rises.

        Args:
            resume: Go on from the last checkpoint, if there is one.

        Returns:
            How the stage went.

        Raises:
            FloatingPointError: If the loss is not a number; the batch's ids are saved.
            Preempted: After the checkpoint that a SIGTERM asks for.
        """
        if resume and (loaded := self.checkpoints.load_last()) is not None:
            self.progress = loaded
            resume_schedule(self.schedule, loaded.scheduled)
            logger.info("going on from step %d", loaded.step)
        if self.accelerator.is_main_process:
            self.log.rewind(self.progress.step)
        self.embedder.train()
        with self._bar() as bar, _on_sigterm(self._terminate):
            batches = self._batches()
            while self.progress.step < self.max_steps and not self._exhausted():
                self._step(batches, bar)
        if self.progress.step and not self._just_evaluated() and not self._exhausted():
            self._evaluate(None)
        return self.progress

    def _step(self, batches: Iterator[TrainingBatch], bar: Any) -> None:
        start = time.perf_counter()
        losses = self._backward(batches)
        norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
            self.progress.scheduled += 1
        clamp_logit_scale(self.model.logit_scale)
        self.progress.step += 1
        seconds = time.perf_counter() - start
        self.progress.seconds += seconds
        bar.update()
        bar.set_postfix(self._shown(losses), refresh=False)
        self._record(losses, norm, seconds)
        if self.dev is not None and self.progress.step % self.config.eval_steps == 0:
            self._evaluate(bar)
        self._checkpoint_if_due()

    def _backward(self, batches: Iterator[TrainingBatch]) -> dict[str, float]:
        """Sum up the gradients of a step's batches; return its losses by name, averaged."""
        count = self.config.gradient_accumulation_steps
        sums: torch.Tensor | None = None
        names: list[str] = []
        for _ in range(count):
            batch = next(batches)
            with self.accelerator.accumulate(self.embedder):
                embeddings, parts, logit_scale = self.embedder(batch.groups)
                losses = self.objective(embeddings, parts, logit_scale, batch)
                total = self.objective.total(losses)
                names = [*losses, "loss"]
                values = torch.stack([*losses.values(), total]).detach().double() / count
                values = mean_over_processes(values)
                self._check_finite(values, names, batch)
                self.accelerator.backward(total)
            sums = values if sums is None else sums + values
        return dict(zip(names, [] if sums is None else sums.tolist(), strict=True))

    def _check_finite(self, values: torch.Tensor, names: list[str], batch: TrainingBatch) -> None:
        if bool(torch.isfinite(values).all()):
            return
        path = self.folder / f"not-finite-{self.accelerator.process_index}.json"
        rows = batch.documents.tolist()
        content = {
            "step": self.progress.step,
            "losses": dict(zip(names, map(str, values.tolist()), strict=True)),
            "queries": batch.query_ids,
            "documents": [self.examples.reader.ids[row] for row in rows],
        }
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
        raise FloatingPointError(
            f"the loss is not finite at step {self.progress.step} ({content['losses']}); the batch's ids are in {path}"
        )

    def _clip(self) -> float:
        parameters = [parameter for parameter in self.embedder.parameters() if parameter.grad is not None]
        limit = self.config.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        return float(norm) if norm is not None else math.nan

    def _record(self, losses: dict[str, float], norm: float, seconds: float) -> None:
        if self.progress.step % self.config.log_steps:
            return
        record: dict[str, float] = {
            **losses,
            "logit_scale": float(self.model.logit_scale.detach().exp()),
            "grad_norm": norm,
        }
        record |= {"learning_rate": float(max(self.schedule.get_last_lr()))}
        if self.accelerator.is_main_process:
            self.log.append({"step": self.progress.step, **record})
        samples = self.config.batch_size * self.config.gradient_accumulation_steps
        timing = {"samples_per_second": samples / seconds, "memory_gb": _peak_memory(self.accelerator.device)}
        self.accelerator.log(record | timing, step=self.progress.step)

    def _evaluate(self, bar: Any) -> None:
        if self.dev is None:
            self.save_best({})
            return
        metrics = self.dev(self.model)
        self.embedder.train()
        step, progress = self.progress.step, self.progress
        progress.history.append({"step": step, **metrics})
        self.accelerator.log({f"dev/{name}": value for name, value in metrics.items()}, step=step)
        best = progress.best_metric is None or metrics[METRIC] > progress.best_metric
        if best:
            progress.best_metric, progress.best_step, progress.evaluations_without_gain = metrics[METRIC], step, 0
            self.save_best(metrics)
        else:
            progress.evaluations_without_gain += 1
        if self.accelerator.is_main_process:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            tqdm.write(f"step {step}: dev {shown}{'  (best)' if best else ''}")
        if bar is not None:
            bar.set_postfix({"dev": f"{metrics[METRIC]:.4f}"})

    def _checkpoint_if_due(self) -> None:
        terminated = self._terminated_anywhere()
        if terminated or self.progress.step % self.config.save_steps == 0:
            self.checkpoints.save(self.progress)
        if terminated:
            raise Preempted(f"stopped by SIGTERM; step {self.progress.step} is saved, --resume goes on from there")

    def _terminated_anywhere(self) -> bool:
        found = gather_sizes([int(self._terminated)], self.accelerator.device)
        return any(value for row in found for value in row)

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def _exhausted(self) -> bool:
        limit = self.config.early_stopping
        return limit is not None and self.progress.evaluations_without_gain >= limit

    def _just_evaluated(self) -> bool:
        history = self.progress.history
        return bool(history) and history[-1]["step"] == self.progress.step

    def _batches(self) -> Iterator[TrainingBatch]:
        config, accelerator = self.config, self.accelerator
        sampler = GlobalBatches(
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
            persistent_workers=config.workers > 0,
            generator=torch.Generator().manual_seed(config.seed),  # the run's own random state is left alone
        )
        for batch in loader:
            self.broken.update(batch.broken)
            yield batch.to(accelerator.device)

    def _bar(self) -> Any:
        return tqdm(
            total=self.max_steps,
            initial=self.progress.step,
            desc=self.config.stage,
            unit="step",
            disable=not self.accelerator.is_local_main_process,
        )

    def _shown(self, losses: dict[str, float]) -> dict[str, str]:
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        if self.progress.history:
            shown["dev"] = f"{self.progress.history[-1][METRIC]:.4f}"
        return shown


@contextmanager
def _on_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    """Call a handler on SIGTERM; outside the main thread, where Python has no signals, do nothing."""
    try:
        before = signal.signal(signal.SIGTERM, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _peak_memory(device: torch.device) -> float:
    """Most memory that tensors have taken on a GPU, in GB; 0 elsewhere."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
