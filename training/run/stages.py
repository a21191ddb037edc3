"""Runs the stages of a configuration in order, each starting from the model of the previous one."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.loading import load_dataset
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import EncodingOptions
from ciea_hf.training.config import STAGES
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.data.examples import AlignmentExamples, Examples, RetrievalExamples, WarmUpExamples
from ciea_hf.training.data.features import VisionFeatures, cache_vision_features, features_key
from ciea_hf.training.data.mining import mine_negatives
from ciea_hf.training.data.negatives import MiningOptions, load_negatives, save_negatives
from ciea_hf.training.distributed import barrier, run_on_main
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.loss.objective import Objective
from ciea_hf.training.loss.word_alignment import WordAligner, WordObjective
from ciea_hf.training.run.accelerator import create_accelerator, is_sharded, start_trackers
from ciea_hf.training.run.backbone import load_model, plain_weights, prepare_model
from ciea_hf.training.run.dev_evaluator import DevEvaluator
from ciea_hf.training.run.encoder import TrainingEncoder
from ciea_hf.training.run.publishing import publish
from ciea_hf.training.run.stage_folder import StageFolder
from ciea_hf.training.run.trainer import Trainer
from ciea_hf.training.run.word_evaluator import WordEvaluator
from ciea_hf.utils import cache_dir, import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)

NEGATIVES = "mine"
AUTO = "auto"


def run_stages(config: TrainingConfig) -> dict[str, dict[str, Any]]:
    """Run the stages of a configuration.

    Args:
        config: Resolved configuration; `stage` may name several stages.

    Returns:
        Result of each stage: steps, the best dev metrics, the history of evaluations. Results are written to
        `output_dir/STAGE`, the best model to `output_dir/STAGE/best`.

    Raises:
        ValueError: If the output folder holds another run and `resume` is not set.
    """
    accelerator = create_accelerator(config)
    with accelerator.main_process_first():
        data = {
            split: load_dataset(config.dataset, split, config.dataset_format)
            for split in (config.train_split, config.dev_split)
            if split
        }
    runs = [StageRun(config, stage, accelerator, data) for stage in config.stage_names]
    run_on_main(lambda: _check_folders(runs))
    start_trackers(accelerator, config)
    results: dict[str, dict[str, Any]] = {}
    for run in runs:
        results[run.config.stage] = run.run()
        accelerator.free_memory()  # otherwise the next stage's checkpoints would contain this stage's model
    accelerator.end_training()
    return results


def _check_folders(runs: Sequence[StageRun]) -> None:
    for run in runs:
        run.folder.check()


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
        self._has_own_model = "model" in config.stages.get(stage, {})

    def run(self) -> dict[str, Any]:
        """Run the stage, unless a resumed run has finished it; return its result."""
        finished = run_on_main(self.folder.result)
        if finished is not None:
            logger.info("stage %s is already finished", self.config.stage)
            return finished
        if self.accelerator.is_main_process:
            self.folder.begin()
        barrier()
        result = self._mine() if self.config.stage == "mine" else self._train()
        if self.accelerator.is_main_process:
            self.folder.finish(result)
        barrier()
        return result

    def _load_model(self) -> CIEAModel:
        """Load the stage's own model if configured, else that of the last finished stage, else the run's."""
        previous = None if self._has_own_model else self._previous_model()
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

    def _previous_model(self) -> Path | None:
        for stage in reversed(STAGES[: STAGES.index(self.config.stage)]):
            folder = StageFolder(self.output / stage, self.config, self.data)
            if folder.best.is_dir() and folder.result() is not None:
                return folder.best
        return None

    def _train(self) -> dict[str, Any]:
        config = self.config
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
            self._examples(model),
            self._collator(model, objective.needs_image_only),
            self.accelerator,
            self.folder.path,
            self._dev_evaluator(model),
        )
        trainer.save_best = lambda metrics: self._save_best(model, trainer.embedder, metrics)
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
            return WordAligner(model, special_tokens(model)).to(self.accelerator.device), WordObjective(
                config.word_scale
            )
        objective = Objective.of_stage(config)
        embedder = Embedder(
            model,
            config.complement_patches if objective.needs_image_only else None,
            gradient_cache=config.gradient_cache_chunk is not None,
            in_step=sharded,
        )
        return embedder, objective

    def _dev_evaluator(self, model: CIEAModel) -> DevEvaluator | WordEvaluator | None:
        config = self.config
        if not config.dev_split:
            return None
        dataset = self.data[config.dev_split]
        if config.aligns_words:
            view = self._view(model, dataset, self._features(model, dataset), "image")
            return WordEvaluator(
                view, model, self._collator(model), frozenset(special_tokens(model)), config.eval_batch_size
            )
        collator = self._collator(model, chunk_size=config.eval_batch_size)
        features = self._features(model, dataset)
        return DevEvaluator(
            dataset,
            model,
            collator,
            lambda part: self._view(model, part, features),
            config.eval_batch_size,
            limit=config.eval_documents,
            seed=config.seed,
            workers=config.workers,
        )

    def _save_best(self, model: CIEAModel, embedder: Any, metrics: dict[str, float]) -> None:
        """Save the model as the best so far; sharded weights are gathered first."""
        gathered = self.accelerator.get_state_dict(embedder) if is_sharded(self.accelerator) else None
        if self.accelerator.is_main_process:
            self.folder.save_best(model, metrics, gathered and plain_weights(model, gathered))
        barrier()

    def _view(
        self,
        model: CIEAModel,
        dataset: RetrievalDataset,
        features: VisionFeatures | None = None,
        content: str | None = None,
    ) -> DocumentView:
        return DocumentView(
            dataset,
            content or self.config.content,
            on_broken_image=self.config.on_broken_image,
            features=features,
            preprocess=model.processor.preprocess_image,
        )

    def _features(self, model: CIEAModel, dataset: RetrievalDataset) -> VisionFeatures | None:
        """Compute or load the features of a frozen tower, if the configuration asks for them."""
        config = self.config
        frozen = "vision" in config.freeze
        if config.cache_vision_features not in (None, AUTO) and not frozen:
            raise ValueError("`cache_vision_features` requires a frozen tower: add 'vision' to `freeze`")
        if not config.cache_vision_features or not frozen or config.content == "caption":
            return None
        chosen = str(config.cache_vision_features)
        folder = cache_dir() / "vision-features" / features_key(model)[:16] if chosen == AUTO else Path(chosen)
        return cache_vision_features(
            model,
            self._view(model, dataset),
            folder / f"{dataset.name}-{dataset.corpus_fingerprint[:16]}",
            progress=self.accelerator.is_local_main_process,
        )

    def _collator(
        self, model: CIEAModel, needs_reduced_queries: bool = False, chunk_size: int | None = None
    ) -> Collator:
        config, builder = self.config, None
        prompts = {} if config.aligns_words else model.config.prompts
        if needs_reduced_queries:
            builder = ComplementaryQueryBuilder(
                model.processor.tokenizer, config.query_reduction, prompts.get("query", "")
            )
        limit = model.processor.max_text_length
        return Collator(model.processor, limit, prompts, builder, chunk_size or config.gradient_cache_chunk)

    def _examples(self, model: CIEAModel) -> Examples:
        config = self.config
        dataset = self.data[config.train_split]
        features = self._features(model, dataset)
        if config.stage == "align":
            return AlignmentExamples(self._view(model, dataset, features, "image"))
        view = self._view(model, dataset, features)
        if config.stage == "warm_up":
            return WarmUpExamples(view)
        if config.stage == "hard_negatives":
            negatives = load_negatives(config.negatives or self.output / NEGATIVES, view.ids)
            counts = {"image": config.image_negatives, "text": config.text_negatives}
            return RetrievalExamples(dataset, view, negatives, counts, config.caption_dropout)
        return RetrievalExamples(dataset, view, caption_dropout=config.caption_dropout)

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
        found = mine_negatives(
            TrainingEncoder(model, Embedder(model).eval(), self._collator(model, chunk_size=config.eval_batch_size)),
            dataset,
            options,
            encoding=EncodingOptions(
                batch_size=config.eval_batch_size, show_progress_bar=self.accelerator.is_local_main_process
            ),
            folder=self.folder.path / "embeddings",
            view=self._view(model, dataset, self._features(model, dataset)),
        )
        if self.accelerator.is_main_process:
            path = save_negatives(found, self.folder.path)
            logger.info("mined negatives: %s; written to %s", found.report, path)
        return {"stage": config.stage, "report": found.report}


def special_tokens(model: CIEAModel) -> list[int]:
    """Return the token ids of a model that are not words: the tokenizer's special tokens and the image's marks."""
    config = model.config
    marks = [config.image_token_id, config.image_start_token_id, config.image_end_token_id]
    return sorted({*model.processor.tokenizer.all_special_ids, *marks})
