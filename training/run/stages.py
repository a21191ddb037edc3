"""Runs the stages of a configuration in order, each starting from the model of the previous one."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.loading import load_dataset
from ciea_hf.retrieval.encoding import EncodingOptions
from ciea_hf.training.config import STAGES
from ciea_hf.training.data.mining import mine_negatives
from ciea_hf.training.data.negatives import MiningOptions, save_negatives
from ciea_hf.training.distributed import barrier, run_on_main
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.loss.objective import Objective
from ciea_hf.training.loss.word_alignment import WordAligner, WordObjective
from ciea_hf.training.run.accelerator import create_accelerator, is_sharded, start_trackers
from ciea_hf.training.run.backbone import load_model, plain_weights, prepare_model
from ciea_hf.training.run.encoder import TrainingEncoder
from ciea_hf.training.run.lock import locked
from ciea_hf.training.run.origins import run_origins
from ciea_hf.training.run.publishing import publish
from ciea_hf.training.run.stage_folder import StageFolder
from ciea_hf.training.run.stage_inputs import StageInputs, check_images, special_tokens
from ciea_hf.training.run.trainer import Trainer
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)

NEGATIVES = "mine"


def run_stages(config: TrainingConfig) -> dict[str, dict[str, Any]]:
    """Run the stages of a configuration.

    Args:
        config: Resolved configuration; `stage` may name several stages.

    Returns:
        Result of each stage: steps, the best dev metrics, the history of evaluations. Results are written to
        `output_dir/STAGE`, the best model to `output_dir/STAGE/best`.

    Raises:
        ValueError: If the output folder holds another run and `resume` is not set, or another training is using it.
    """
    accelerator = create_accelerator(config)
    with accelerator.main_process_first():
        data = {
            split: load_dataset(config.dataset, split, config.dataset_format)
            for split in (config.train_split, config.dev_split)
            if split
        }
    runs = [StageRun(config, stage, accelerator, data) for stage in config.stage_names]
    results: dict[str, dict[str, Any]] = {}
    with locked(Path(config.output_dir)):
        run_on_main(lambda: _check_folders(runs))
        start_trackers(accelerator, config)
        for run in runs:
            results[run.config.stage] = run.run()
            accelerator.free_memory()  # otherwise the next stage's checkpoints would contain this stage's model
        accelerator.end_training()
    return results


def _check_folders(runs: Sequence[StageRun]) -> None:
    for run in runs:
        run.folder.check()


def warn_about(config: TrainingConfig) -> None:
    """Log what of a stage's configuration has no effect.

    Args:
        config: Configuration of the stage.
    """
    stage = config.stage
    if config.batch_size == 1 and stage != "hard_negatives":
        logger.warning(
            "stage %s: with `batch_size` 1 a query has no negatives, and the contrastive loss is always 0", stage
        )
    if config.negatives and stage == "in_batch":
        logger.warning("stage %s: `negatives` has no effect; stage hard_negatives uses it", stage)
    if config.lora and "text" in config.freeze:
        logger.warning("stage %s: `lora` has no effect, because the language model is frozen", stage)
    if config.max_steps is not None and config.warmup_steps >= config.max_steps:
        logger.warning(
            "stage %s: `warmup_steps` %d is not below `max_steps` %d: the learning rate does not reach its peak",
            stage, config.warmup_steps, config.max_steps,
        )  # fmt: skip


class StageRun:
    """One stage of a run.

    Args:
        config: Configuration of the run.
        stage: Name of the stage.
        accelerator: Accelerator of the run.
        data: Data sets by split.
    """

    def __init__(
        self, config: TrainingConfig, stage: str, accelerator: Accelerator, data: dict[str, RetrievalDataset]
    ) -> None:
        self.config = config.for_stage(stage)
        self.accelerator = accelerator
        self.data = data
        self.output = Path(config.output_dir)
        self.folder = StageFolder(self.output / stage, self.config, data)
        self.inputs = StageInputs(self.config, accelerator, data, self.output / NEGATIVES)
        self._has_own_model = "model" in config.stages.get(stage, {})
        self._start: Path | None = None

    def run(self) -> dict[str, Any]:
        """Run the stage, unless a resumed run has finished it; return its result."""
        finished = run_on_main(self.folder.result)
        if finished is not None:
            logger.info("stage %s is already finished", self.config.stage)
            return finished
        self._start = run_on_main(self._find_start)
        if self.accelerator.is_main_process:
            self.folder.begin(run_origins(self.config, self._start))
        barrier()
        result = self._mine() if self.config.stage == "mine" else self._train()
        if self.accelerator.is_main_process:
            self.folder.finish(result)
        barrier()
        return result

    def _load_model(self) -> CIEAModel:
        """Load the stage's own model if configured, else that of the last finished stage, else the run's."""
        previous = self._start
        if previous is not None and self.config.model is not None:
            logger.warning(
                "stage %s starts from %s instead of %s; set --%s.model to change this",
                self.config.stage, previous, self.config.model, self.config.stage,
            )  # fmt: skip
        with self.accelerator.main_process_first():
            model = load_model(self.config, previous, self.folder.path)
        # processes differ in dropout, as they do in batches
        import_optional("accelerate", extra="train").utils.set_seed(self.config.seed, device_specific=True)
        return model

    def _find_start(self) -> Path | None:
        """Return the model of the last finished stage, or `None` if the stage starts from a configured model.

        Raises:
            ValueError: If a file of that model has changed since the stage was finished.
        """
        if self._has_own_model:
            return None
        for stage in reversed(STAGES[: STAGES.index(self.config.stage)]):
            folder = StageFolder(self.output / stage, self.config, self.data)
            if folder.result() is not None and stage != NEGATIVES:
                folder.check_best()
                return folder.best
        return None

    def _train(self) -> dict[str, Any]:
        config = self.config
        warn_about(config)
        model = self._load_model()
        sharded = is_sharded(self.accelerator)
        if sharded and config.lora:
            raise ValueError("`lora` cannot be combined with an engine that shards weights")
        model = prepare_model(model, config, self.accelerator.mixed_precision, sharded).to(self.accelerator.device)
        embedder, objective = self._modules(model, sharded)
        trainer = Trainer(
            config,
            embedder,
            objective,
            self.inputs.examples(model),
            self.inputs.collator(model, objective.needs_image_only),
            self.accelerator,
            self.folder.path,
            self.inputs.dev_evaluator(model),
        )
        trainer.save_best = lambda metrics: self._save_best(model, trainer.embedder, metrics)
        trainer.check_best = lambda: run_on_main(self.folder.check_best)
        progress = trainer.run(config.resume)
        if self.accelerator.is_main_process:
            publish(self.folder.best, config)
        if progress.broken:
            logger.warning(
                "%d documents have images that cannot be decoded (on_broken_image: %s)",
                len(progress.broken), config.on_broken_image,
            )  # fmt: skip
        best = next((entry for entry in progress.history if entry["step"] == progress.best_step), {})
        return {**asdict(progress), "metrics": best, "stage": config.stage, "model": str(self.folder.best)}

    def _modules(
        self, model: CIEAModel, sharded: bool
    ) -> tuple[Embedder, Objective] | tuple[WordAligner, WordObjective]:
        """Build the module to train and the losses of its output."""
        config = self.config
        if config.aligns_words:
            if sharded:
                raise ValueError("`contrast='words'` cannot be combined with an engine that shards weights")
            aligner = WordAligner(model, special_tokens(model)).to(self.accelerator.device)
            return aligner, WordObjective(config.word_scale)
        objective = Objective.of_stage(config)
        embedder = Embedder(
            model,
            config.complement_patches if objective.needs_image_only else None,
            gradient_cache=config.gradient_cache_chunk is not None,
            in_step=sharded,
        )
        return embedder, objective

    def _save_best(self, model: CIEAModel, embedder: Any, metrics: dict[str, float]) -> None:
        """Save the model as the best so far; sharded weights are gathered first."""
        gathered = self.accelerator.get_state_dict(embedder) if is_sharded(self.accelerator) else None
        if self.accelerator.is_main_process:
            self.folder.save_best(model, metrics, gathered and plain_weights(model, gathered))
        barrier()

    def _mine(self) -> dict[str, Any]:
        config = self.config
        model = self._load_model().to(self.accelerator.device).eval()
        dataset = self.data[config.train_split]
        options = MiningOptions(
            depth=config.mine_depth,
            window=config.mine_window,
            images=config.mine_images,
            texts=config.mine_texts,
            relative_margin=config.relative_margin,
            max_score=config.max_score,
            seed=config.seed,
        )
        collator = self.inputs.collator(model, chunk_size=config.eval_batch_size)
        view = self.inputs.view(model, dataset, self.inputs.features(model, dataset))
        check_images(view)
        found = mine_negatives(
            TrainingEncoder(model, Embedder(model).eval(), collator),
            dataset,
            options,
            encoding=EncodingOptions(
                batch_size=config.eval_batch_size, show_progress_bar=self.accelerator.is_local_main_process
            ),
            folder=self.folder.path / "embeddings",
            view=view,
        )
        if self.accelerator.is_main_process:
            path = save_negatives(found, self.folder.path)
            logger.info("mined negatives: %s; written to %s", found.report, path)
        return {"stage": config.stage, "report": found.report}
