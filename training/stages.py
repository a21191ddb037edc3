"""Runs the stages of a configuration, one after the other, each from the model of the one before."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ciea_hf.training.backbone import load_model, prepare_model, saved_model
from ciea_hf.training.collator import Collator
from ciea_hf.training.config import STAGES
from ciea_hf.training.embedder import Embedder
from ciea_hf.training.examples import AlignmentExamples, CorpusReader, Examples, RetrievalExamples, TextPairs
from ciea_hf.training.features import VisionFeatures, cache_vision_features, features_key
from ciea_hf.training.mining import MiningOptions, load_negatives, mine_negatives, save_negatives
from ciea_hf.training.objective import Objective
from ciea_hf.training.presets import config_as_dict, run_record
from ciea_hf.training.publishing import publish
from ciea_hf.training.ranking import DevRanking
from ciea_hf.training.reduction import QueryReducer
from ciea_hf.training.trainer import Trainer
from ciea_hf.utils import atomic_folder, atomic_write, cache_dir, require

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)

BEST = "best"
RESULT = "result.json"
NEGATIVES = "mine"
DOCUMENT_PARTS = {"all": "full", "caption": "caption", "image": "image"}


def run_stages(config: TrainingConfig) -> dict[str, dict[str, Any]]:
    """Run what a configuration asks for.

    Args:
        config: Resolved; ``stage`` may name several stages.

    Returns:
        Stage to its result: steps, the best dev metrics, the history of evaluations. What each stage made stands in
        ``output_dir/STAGE``, a trained model in ``output_dir/STAGE/best``.

    Raises:
        ValueError: If the output folder holds another run and ``resume`` is not set.
    """
    accelerator = _accelerator(config)
    output = Path(config.output_dir)
    results: dict[str, dict[str, Any]] = {}
    data = {split: load_split(config, split) for split in (config.train_split, config.dev_split) if split}
    for stage in config.stage_names:
        run = StageRun(config.for_stage(stage), accelerator, output, data)
        results[stage] = run.run()
        accelerator.free_memory()  # else the next stage's checkpoints would hold this stage's model, too
    accelerator.end_training()
    return results


def load_split(config: TrainingConfig, split: str) -> RetrievalDataset:
    """Load a split of the configuration's data set; ``demo`` is the embedded benchmark."""
    if not config.dataset:
        raise ValueError("name a `dataset`: a folder or Hub id, or 'demo' for the embedded benchmark")
    if config.dataset == "demo":
        from ciea_hf.demo.benchmark import load_benchmark

        return load_benchmark(split)
    from ciea_hf.data import load_retrieval_dataset

    return load_retrieval_dataset(config.dataset, split=split, format=config.dataset_format)


class StageRun:
    """One stage of a run.

    Args:
        config: Of the stage.
        accelerator: Of the run.
        output: The run's folder.
        data: Splits by name.
    """

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, output: Path, data: dict[str, RetrievalDataset]
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.output = output
        self.folder = output / config.stage
        self.data = data
        self.record = run_record(config, {split: dataset.fingerprint for split, dataset in data.items()})

    def run(self) -> dict[str, Any]:
        """Run the stage, unless a resumed run has finished it already; return its result."""
        finished = self._finished()
        if finished is not None:
            logger.info("stage %s is finished already", self.config.stage)
            return finished
        if self.accelerator.is_main_process:
            self._write_record()
        self.accelerator.wait_for_everyone()
        result = self._mine() if self.config.stage == "mine" else self._train()
        if self.accelerator.is_main_process:
            with atomic_write(self.folder / RESULT) as path:
                path.write_text(json.dumps(result, indent=2), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        return result

    def _finished(self) -> dict[str, Any] | None:
        path = self.folder / RESULT
        if self.config.resume and path.is_file():
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        if not self.config.resume and self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(
                f"{self.folder} holds a run already: go on with --resume, name another --output-dir, or remove it"
            )
        return None

    def _write_record(self) -> None:
        with atomic_write(self.folder / "training_config.yaml") as path:
            path.write_text(yaml.safe_dump(config_as_dict(self.config), sort_keys=False), encoding="utf-8")
        with atomic_write(self.folder / "run.json") as path:
            path.write_text(json.dumps(self.record, indent=2), encoding="utf-8")

    def _previous_model(self) -> Path | None:
        """The model of the last stage before this one that has trained one; `hard` goes on from `in_batch`."""
        for stage in reversed(STAGES[: STAGES.index(self.config.stage)]):
            if (self.output / stage / RESULT).is_file() and (self.output / stage / BEST).is_dir():
                return self.output / stage / BEST
        return None

    def _train(self) -> dict[str, Any]:
        config = self.config
        with self.accelerator.main_process_first():
            model = load_model(config, self._previous_model(), self.folder)
        model = prepare_model(model, config).to(self.accelerator.device)
        objective = Objective.of_stage(config)
        collator = self._collator(model, objective)
        examples = self._examples(self._reader(model, config.train_split))
        embedder = Embedder(
            model,
            config.complement_patches if objective.needs_image_parts else None,
            gradient_cache=config.gradient_cache_chunk is not None,
        )
        dev = None
        if config.dev_split:
            dev = DevRanking(
                self.data[config.dev_split],
                self._reader(model, config.dev_split),
                collator,
                config.eval_batch_size,
                config.eval_documents,
                config.seed,
            )
        trainer = Trainer(
            config,
            embedder,
            objective,
            examples,
            collator,
            self.accelerator,
            self.folder,
            dev,
            lambda metrics: self._save_best(model, metrics),
        )
        progress = trainer.run(config.resume)
        if self.accelerator.is_main_process:
            publish(self.folder / BEST, config)
        if trainer.broken:
            logger.warning("%d documents were left out, their images cannot be decoded", len(trainer.broken))
        return {**asdict(progress), "stage": config.stage, "model": str(self.folder / BEST)}

    def _save_best(self, model: CIEAModel, metrics: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with atomic_folder(self.folder / BEST) as folder:
            saved_model(model).save_pretrained(folder)
            _write_card(folder, self.record, metrics, self.data, self.config.dev_split)

    def _reader(self, model: CIEAModel, split: str) -> CorpusReader:
        dataset = self.data[split]
        reader = CorpusReader(dataset, self.config.documents)
        if self.config.cache_vision_features and "vision" in self.config.freeze and reader.part != "caption":
            reader.features = self._features(model, reader, dataset)
        return reader

    def _features(self, model: CIEAModel, reader: CorpusReader, dataset: RetrievalDataset) -> VisionFeatures:
        key = features_key(model, dataset.fingerprint)
        chosen = str(self.config.cache_vision_features)
        folder = cache_dir() / "vision-features" / key if chosen == "auto" else Path(chosen) / dataset.split
        with self.accelerator.main_process_first():
            return cache_vision_features(
                model,
                reader,
                folder,
                key,
                on_broken_image=self.config.on_broken_image,
                progress=self.accelerator.is_local_main_process,
            )

    def _collator(self, model: CIEAModel, objective: Objective) -> Collator:
        prompts = model.config.prompts
        reducer = None
        if objective.needs_image_parts:
            tokenizer = model.processor.tokenizer
            reducer = QueryReducer(tokenizer, self.config.query_reduction, prompts.get("query", ""))
        return Collator(
            model.processor, self.config.max_length, prompts, reducer, chunk_size=self.config.gradient_cache_chunk
        )

    def _examples(self, reader: CorpusReader) -> Examples:
        config = self.config
        dataset = self.data[config.train_split]
        if config.stage == "align":
            return AlignmentExamples(reader, config.on_broken_image)
        if config.stage == "warm_up":
            return TextPairs(dataset, reader)
        if config.stage == "hard":
            negatives = load_negatives(config.negatives or self.output / NEGATIVES, reader.ids)
            counts = {"image": config.image_negatives, "text": config.text_negatives}
            return RetrievalExamples(dataset, reader, config.on_broken_image, negatives, counts)
        return RetrievalExamples(dataset, reader, config.on_broken_image)

    def _mine(self) -> dict[str, Any]:
        config = self.config
        report: dict[str, int] = {}
        if self.accelerator.is_main_process:
            model = load_model(config, self._previous_model(), self.folder).to(self.accelerator.device).eval()
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
                model,
                self.data[config.train_split],
                options,
                documents=DOCUMENT_PARTS[config.documents],
                folder=self.folder / "embeddings",
            )
            path = save_negatives(found, self.folder)
            report = found.report
            logger.info("mined negatives: %s; written to %s", report, path)
        self.accelerator.wait_for_everyone()
        return {"stage": "mine", "report": report}


def _accelerator(config: TrainingConfig) -> Accelerator:
    accelerate = require("accelerate", extra="train")
    project = accelerate.utils.ProjectConfiguration(project_dir=config.output_dir)
    created: Accelerator = accelerate.Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        mixed_precision=config.mixed_precision,
        log_with=_trackers(config),
        project_config=project,
        kwargs_handlers=[
            # a process may meet a batch without an image, and wait while the first one prepares data
            accelerate.DistributedDataParallelKwargs(find_unused_parameters=True),
            accelerate.InitProcessGroupKwargs(timeout=timedelta(days=1)),
        ],
    )
    settings = {name: value for name, value in config_as_dict(config).items() if isinstance(value, int | float | str)}
    created.init_trackers("ciea", config=settings)
    return created


def _trackers(config: TrainingConfig) -> list[str]:
    import importlib.util

    names = [name for name in config.trackers if name not in ("auto", "none")]
    if "auto" in config.trackers and importlib.util.find_spec("tensorboard") is not None:
        names.append("tensorboard")
    return names


def _write_card(
    folder: Path,
    record: dict[str, Any],
    metrics: dict[str, float],
    data: dict[str, RetrievalDataset],
    dev_split: str | None,
) -> None:
    from ciea_hf.model_cards import write_model_card

    results = None
    if metrics and dev_split:
        dataset = data[dev_split]
        results = {"dataset": dataset.name, "split": dev_split, "metrics": metrics}
    run = {name: record[name] for name in ("command", "config", "versions", "git_revision", "seed")}
    any_split = next(iter(data.values()))
    write_model_card(
        folder, run={**run, "dataset": any_split.name, "data_fingerprint": record["data"]}, results=results
    )
