"""A data set and backbones as small as training allows, on disk and in memory."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

from ciea_hf.data import RetrievalDataset, save_retrieval_dataset
from ciea_hf.data.dataset import corpus_from_columns, queries_from_columns
from ciea_hf.training.arguments import config_as_dict
from ciea_hf.training.config import TrainingConfig, updated
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import text_config, tiny_model, tiny_processor, vision_config

if TYPE_CHECKING:
    from ciea_hf import CIEAModel

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
THINGS = ("cat", "dog", "house", "tree", "car", "boat", "apple", "bread", "hammer", "tower")
BROKEN = b"not an image"
BACKBONES = ("vision_model", "text_model")


def coloured_image(colour: str, seed: int = 0) -> bytes:
    """An image of one colour, slightly different for every seed, as the bytes of a PNG file."""
    rng = random.Random(seed)
    pixel = tuple(min(255, max(0, value + rng.randint(-25, 25))) for value in COLOURS[colour])
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), pixel).save(buffer, "PNG")
    return buffer.getvalue()


def training_data(split: str = "train", images: int = 24, texts: int = 6, broken: int = 0) -> RetrievalDataset:
    """Images of one colour whose captions name only a thing, one image without a caption, and texts.

    A query names the thing and the colour. Pairs of them repeat, so such a query has two positives; for one query, a
    text is relevant as well. The first `broken` images cannot be decoded.
    """
    seed = {"train": 0, "dev": 1000, "test": 2000}[split]
    ids: list[str] = []
    captions: list[str | None] = []
    encoded: list[bytes | None] = []
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for i in range(images):
        thing, colour = THINGS[i % 4], list(COLOURS)[i // 4 % 3]
        ids.append(f"img-{i}")
        captions.append(f"a photo of the {thing}")
        encoded.append(BROKEN if i < broken else coloured_image(colour, seed + i))
        query = f"q-{thing}-{colour}"
        queries.setdefault(query, f"where is the {colour} {thing}")
        qrels.setdefault(query, {})[f"img-{i}"] = 1
    ids.append("img-bare")
    captions.append(None)
    encoded.append(coloured_image("red", seed + 999))
    queries["q-bare"] = "a red drawing"
    qrels["q-bare"] = {"img-bare": 1}
    for i in range(texts):
        thing = THINGS[4 + i % 6]
        ids.append(f"txt-{i}")
        captions.append(f"the {thing} is next to the big {THINGS[i % 10]}" + " and the small tree" * (i % 3))
        encoded.append(None)
        queries[f"q-txt-{i}"] = f"what is next to the {thing}"
        qrels[f"q-txt-{i}"] = {f"txt-{i}": 1}
    qrels[next(iter(qrels))][f"txt-{texts - 1}"] = 1
    corpus = corpus_from_columns(ids, captions, encoded)
    return RetrievalDataset(corpus, queries_from_columns(list(queries), list(queries.values())), qrels, "toy", split)


def save_training_data(folder: Path, **kwargs: Any) -> Path:
    """Save the splits train and dev."""
    splits = {split: training_data(split, **kwargs) for split in ("train", "dev")}
    save_retrieval_dataset(splits, folder, "# Toy")
    return folder


def save_backbones(folder: Path, family: str = "t5") -> list[str]:
    """Save a tiny vision tower and language model with their processors; return the options that name them."""
    processor = tiny_processor(family)
    torch.manual_seed(0)
    for name, config in zip(BACKBONES, (vision_config(), text_config(family)), strict=True):
        AutoModel.from_config(config).save_pretrained(folder / name)
    processor.image_processor.save_pretrained(folder / BACKBONES[0])
    processor.tokenizer.save_pretrained(folder / BACKBONES[1])
    return [item for name in BACKBONES for item in (f"--{name}", str(folder / name))]


def named_gradients(model: CIEAModel) -> dict[str, torch.Tensor]:
    """Copies of the existing gradients, by parameter."""
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def save_start(folder: Path, family: str = "t5", **kwargs: Any) -> Path:
    """Save a tiny model that does not drop out, to start training from."""
    model = tiny_model(family, extractor_dropout=0.0, **kwargs)
    for name in ("dropout_rate", "dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(model.config.text_config, name):
            setattr(model.config.text_config, name, 0.0)
    model.save_pretrained(folder)
    return folder


def read_log(folder: Path) -> list[dict[str, float]]:
    """The loss log of a stage."""
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def log_of(config: TrainingConfig) -> list[dict[str, float]]:
    """Train, and return the loss log of stage `in_batch`."""
    run_stages(config)
    return read_log(Path(config.output_dir) / "in_batch")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a folder."""
    return load_file(folder / "model.safetensors")


def reset_engine() -> None:
    """Forget the state of Accelerate, which lasts as long as the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def configured(toy: Path, output: Path, **values: Any) -> TrainingConfig:
    """A short run from the model that does not drop out; `values` override."""
    settings = {
        "dataset": str(toy / "data"), "model": str(toy / "start"), "output_dir": str(output), "batch_size": 4,
        "max_steps": 4, "eval_steps": 2, "save_steps": 2, "log_steps": 1, "learning_rate": 1e-3, "lambda": 0.5,
        "trackers": "none", "early_stopping": None,
    }  # fmt: skip
    return updated(TrainingConfig(), settings | values)


def arguments_of(config: TrainingConfig, toy: Path) -> list[str]:
    """Write a configuration and return the command line that reads it."""
    path = toy / f"{config.output_dir.replace('/', '-')}.yaml"
    path.write_text(yaml.safe_dump(config_as_dict(config)))
    return ["--preset", str(path)]


def same_weights(left: Path, right: Path) -> bool:
    """Whether the weights of two folders are equal to the last bit."""
    one, other = weights_of(left), weights_of(right)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moved(folder: Path, start: Path) -> dict[str, float]:
    """How far each weight has moved, by name; those that have not are left out."""
    before, after = weights_of(start), weights_of(folder)
    assert before.keys() == after.keys()
    distances = {name: (after[name] - before[name]).abs().max().item() for name in after}
    return {name: distance for name, distance in distances.items() if distance}


def best_model(folder: Path, stage: str) -> CIEAModel:
    """The best model of a stage."""
    return AutoModel.from_pretrained(folder / stage / "best")
