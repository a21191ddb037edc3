"""Folder of a stage: record of the run, result and best model."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import yaml

from ciea_hf.files import atomic_folder, atomic_write, remove_leftovers, write_json
from ciea_hf.training.arguments import config_as_dict
from ciea_hf.training.run.backbone import saved_model
from ciea_hf.training.run.checkpoint import whole_or_not_at_all
from ciea_hf.training.run.checksums import CHECKSUMS, find_damage, read_json, write_checksums
from ciea_hf.training.run.record import run_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.config import TrainingConfig

logger = logging.getLogger(__name__)

BEST = "best"
RESULT = "result.json"
CONFIG = "training_config.yaml"  # model cards are filled from this file and RUN
RUN = "run.json"
DESCRIPTIONS = ("README.md", "run.json", "eval_results.json")  # files of a model that may change after the training
RECORDED = ("command", "config", "versions", "git_revision", "seed", "base_model", "datasets")

# Options that may change when a run is resumed, because they do not affect its results.
RESUMABLE_CHANGES = frozenset(
    ("resume", "output_dir", "workers", "save_steps", "keep_checkpoints", "trackers", "push_to_hub", "hub_private",
     "stage", "all_stages", "stages")
)  # fmt: skip


class StageFolder:
    """The folder of one stage.

    Args:
        path: Folder of the stage.
        config: Configuration of the stage.
        data: Data sets of the run by split.
    """

    def __init__(self, path: Path, config: TrainingConfig, data: Mapping[str, RetrievalDataset]) -> None:
        self.path = path
        self.config = config
        self.data = data
        self.best = path / BEST

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished stage, else `None`.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.path / RESULT
        if not path.is_file():
            return None
        content = read_json(path)
        if content.get("stage") != self.path.name:
            raise ValueError(f"{path} is damaged: it is not a result of stage {self.path.name}")
        return content

    def check(self) -> None:
        """Check that the folder is empty or contains the run to resume; changed options are logged.

        Raises:
            ValueError: If the folder contains a run and `resume` is not set, or a run on other data.
        """
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not self.config.resume:
            raise ValueError(
                f"{self.path} already contains a run: continue it with --resume, set another --output-dir, or delete it"
            )
        if (self.path / RUN).is_file():
            before = read_json(self.path / RUN)
            data, config = before.get("data"), before.get("config")
            if not isinstance(data, dict) or not isinstance(config, dict):
                raise ValueError(f"{self.path / RUN} is damaged: it has no `data` and `config`")
            for split, dataset in self.data.items():
                if data.get(split, dataset.fingerprint) != dataset.fingerprint:
                    raise ValueError(f"{self.path} was trained on another {split} split: set another --output-dir")
            self._log_changes(config)

    def _log_changes(self, before: dict[str, Any]) -> None:
        now = json.loads(json.dumps(config_as_dict(self.config)))
        changed = [name for name in sorted(now.keys() - RESUMABLE_CHANGES) if before.get(name) != now[name]]
        if self.result() is not None and changed:
            logger.warning("stage %s is finished: %s has no effect", self.config.stage, ", ".join(changed))
            return
        for name in changed:
            logger.warning("resuming with a changed option: %s is %s, was %s", name, now[name], before.get(name))

    def begin(self, origins: Mapping[str, Any]) -> None:
        """Write configuration and record, and remove partial files of a killed run.

        Args:
            origins: Entries of the record from [`run_origins`]; those of a resumed run are kept.
        """
        record = run_record(self.config, {split: dataset.fingerprint for split, dataset in self.data.items()})
        before = read_json(self.path / RUN) if (self.path / RUN).is_file() else {}
        record |= {name: before.get(name, origin) for name, origin in origins.items()}
        with atomic_write(self.path / CONFIG) as path:
            path.write_text(yaml.safe_dump(record["config"], sort_keys=False), encoding="utf-8")
        write_json(self.path / RUN, record)
        remove_leftovers(self.best)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, which marks the stage as finished."""
        write_json(self.path / RESULT, dict(result))

    def check_best(self) -> None:
        """Check that the best model is what the stage has saved.

        Raises:
            ValueError: If one of its files is missing or has changed.
        """
        if not (self.best / "config.json").is_file():
            damage: str | None = "config.json is missing"
        else:  # a model that was put there by hand has no checksums
            damage = find_damage(self.best) if (self.best / CHECKSUMS).is_file() else None
        if damage is not None:
            raise ValueError(
                f"the best model {self.best} is damaged: {damage}. Restore it, or delete {self.path} to train it again"
            )

    def save_best(self, model: CIEAModel, metrics: Mapping[str, float], weights: dict[str, Tensor] | None) -> None:
        """Save the model as the best one so far, as a complete Hub folder with a model card.

        Args:
            model: Model.
            metrics: Metrics on the dev split; empty without an evaluation.
            weights: Gathered weights if an engine has sharded the model, else `None`.

        Raises:
            OSError: If the disk is full or cannot be written; the previous best model remains unchanged.
        """
        with (
            whole_or_not_at_all(f"the best model {self.best}", "the previous one is unchanged", self.path),
            atomic_folder(self.best) as folder,
        ):
            given: dict[str, Any] = {} if weights is None else {"state_dict": weights}
            saved_model(model).save_pretrained(folder, **given)
            self._write_card(folder, metrics)
            write_checksums(folder, ignored=DESCRIPTIONS)

    def _write_card(self, folder: Path, metrics: Mapping[str, float]) -> None:
        from ciea_hf.model_cards import write_model_card

        record = read_json(self.path / RUN)
        run = {name: record[name] for name in RECORDED}
        split = self.config.dev_split
        results = None
        if split and "mrr@10" in metrics:
            results = {"dataset": self.data[split].name, "split": split, "metrics": dict(metrics)}
        dataset = self.data[self.config.train_split].name
        write_model_card(folder, run={**run, "dataset": dataset, "data_fingerprint": record["data"]}, results=results)
