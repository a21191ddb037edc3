"""Vision tower of the embedded benchmark: a miniature of CLIP's vision model, trained on composed scenes.

It replaces CLIP where nothing can be downloaded. Each patch state should represent the object that the patch shows, so
the training objective applies a linear head to every patch, takes the maximum over patches, and computes the binary
cross-entropy on the objects present. `vision_tower` contains weights, seed and probe accuracy; `make tower` trains it.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.optimization import get_cosine_schedule_with_warmup

from ciea_hf.data.builders.openmoji.glyphs import CONCEPT_COUNT, CONCEPT_SEED
from ciea_hf.data.builders.openmoji.scenes import SCENE_SIZE, compose_scene, glyph_atlas
from ciea_hf.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

logger = logging.getLogger(__name__)

PIXEL_MEAN = 0.5
PIXEL_STD = 0.5
PROBE_OBJECTS = 4
WEIGHT_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "probe.json", "probe.safetensors")


@dataclass(frozen=True)
class TowerRecipe:
    """Hyperparameters of the packaged weights.

    Args:
        steps: Number of optimiser steps.
        batch_size: Number of new scenes per step.
        learning_rate: Peak learning rate of AdamW, after a linear warm-up and before a cosine decay to zero.
        warmup_steps: Number of warm-up steps.
        weight_decay: Weight decay of AdamW.
        max_objects: Maximum number of objects per training scene.
        seed: Random seed of weights and scenes. The benchmark's scenes use other random streams.
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    warmup_steps: int = 150
    weight_decay: float = 0.05
    max_objects: int = 5
    seed: int = 20250


def tower_folder() -> Path:
    """Return the folder of the packaged tower, for `AutoModel` and `AutoImageProcessor`.

    Raises:
        FileNotFoundError: If the weights are missing from the installed package.
    """
    folder = Path(str(resources.files("ciea_hf.miniature") / "vision_tower"))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"trained tower not found in {folder}: `python -m ciea_hf.miniature.vision` trains one")
    return folder


def tower_config() -> CLIPVisionConfig:
    """Return the tower's configuration: 112 px in 49 patches of 16 px, four layers of width 128."""
    return CLIPVisionConfig(
        image_size=SCENE_SIZE,
        patch_size=16,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
    )


class FreshScenes(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of composed scenes; batch `i` is a function of the seed and `i` only.

    Args:
        batches: Number of batches.
        batch_size: Number of scenes per batch.
        seed: Random seed of the scenes.
        objects: Minimum and maximum number of objects per scene.
    """

    def __init__(self, batches: int, batch_size: int, seed: int, objects: tuple[int, int]) -> None:
        self.batches = batches
        self.batch_size = batch_size
        self.seed = seed
        self.objects = objects

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compose batch `index`: pixel values (batch, 3, 112, 112) and objects present (batch, concepts)."""
        atlas = glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)
        rng = np.random.default_rng((self.seed, index))
        pixels = np.empty((self.batch_size, SCENE_SIZE, SCENE_SIZE, 3), dtype=np.uint8)
        present = torch.zeros(self.batch_size, CONCEPT_COUNT)
        for i in range(self.batch_size):
            count = int(rng.integers(self.objects[0], self.objects[1] + 1))
            objects = rng.choice(CONCEPT_COUNT, size=count, replace=False)
            pixels[i] = compose_scene(objects.tolist(), rng, atlas)
            present[i, torch.from_numpy(objects)] = 1
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        return values.sub_(PIXEL_MEAN).div_(PIXEL_STD), present


def patch_states(tower: CLIPVisionModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states of the patches, without the class token: (batch, 49, 128)."""
    states: torch.Tensor = tower(pixel_values=pixel_values).last_hidden_state[:, 1:]
    return states


def probe_figure(
    tower: CLIPVisionModel, head: nn.Linear, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> float:
    """Return the share of the scenes' four objects among the four highest scores of the max-over-patches probe."""
    found = total = 0.0
    with torch.inference_mode():
        for pixel_values, present in batches:
            scores = head(patch_states(tower, pixel_values)).amax(dim=1)  # (batch, concepts)
            highest = scores.topk(PROBE_OBJECTS, dim=1).indices
            found += present.gather(1, highest).sum().item()
            total += present.sum().item()
    return found / total


def probe_scenes(scenes: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Compose scenes of four objects, disjoint from the training scenes of other seeds."""
    return [FreshScenes(1, scenes, seed, (PROBE_OBJECTS, PROBE_OBJECTS))[0]]


def load_probe(folder: Path) -> nn.Linear:
    """Load the linear head of the tower's training from `probe.safetensors`."""
    from safetensors.torch import load_file

    weights = {name: value.float() for name, value in load_file(folder / "probe.safetensors").items()}
    head = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    head.load_state_dict(weights)
    return head


def train_tower(recipe: TowerRecipe) -> tuple[CLIPVisionModel, nn.Linear]:
    """Train the tower and its head on fresh scenes; deterministic by `recipe.seed` on one machine."""
    scenes = FreshScenes(recipe.steps, recipe.batch_size, recipe.seed, (1, recipe.max_objects))
    unseen = probe_scenes(128, recipe.seed + 1)
    return fit_tower(
        recipe,
        DataLoader(scenes, batch_size=None, num_workers=1),
        CONCEPT_COUNT,
        lambda tower, head: probe_figure(tower, head, unseen),
    )


def fit_tower(
    recipe: TowerRecipe,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    concepts: int,
    figure: Callable[[CLIPVisionModel, nn.Linear], float],
) -> tuple[CLIPVisionModel, nn.Linear]:
    """Train a tower and its head from scratch to recognise the concepts in an image.

    Args:
        recipe: Hyperparameters; `batch_size` is not used.
        batches: Pixel values (batch, 3, 112, 112) and concepts present (batch, concepts), one pair per step.
        concepts: Number of concepts.
        figure: Function that measures tower and head, for the log.
    """
    torch.manual_seed(recipe.seed)
    tower = CLIPVisionModel(tower_config())
    head = nn.Linear(tower.config.hidden_size, concepts)
    nn.init.constant_(head.bias, -4.0)  # concepts are rare: start near their frequency
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    started = time.monotonic()
    for step, (pixel_values, present) in enumerate(batches, start=1):
        logits = head(patch_states(tower, pixel_values)).amax(dim=1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, present, reduction="sum") / present.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == recipe.steps:
            found, seconds = figure(tower, head), time.monotonic() - started
            logger.info("step %d/%d  loss %.4f  probe %.3f  %.0f s", step, recipe.steps, loss.item(), found, seconds)
    tower.train(mode=False)
    return tower, head


def save_tower(tower: CLIPVisionModel, head: nn.Linear, folder: Path, record: dict[str, object]) -> None:
    """Write the tower in half precision, its image processor, probe and record, atomically."""
    from safetensors.torch import save_file

    with atomic_folder(folder) as target:
        half = {name: value.half() for name, value in tower.state_dict().items() if value.is_floating_point()}
        tower.save_pretrained(target, state_dict=half)  # the configuration has float32, in which the weights are loaded
        CLIPImageProcessorPil(
            size={"shortest_edge": SCENE_SIZE},
            crop_size={"height": SCENE_SIZE, "width": SCENE_SIZE},
            image_mean=[PIXEL_MEAN] * 3,
            image_std=[PIXEL_STD] * 3,
        ).save_pretrained(target)
        save_file({k: v.half().contiguous() for k, v in head.state_dict().items()}, target / "probe.safetensors")
        (target / "probe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the tower and write it."""
    parser = argparse.ArgumentParser(prog="python -m ciea_hf.miniature.vision", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "vision_tower", help="output folder")
    parser.add_argument("--steps", type=int, default=TowerRecipe.steps)
    parser.add_argument("--learning-rate", type=float, default=TowerRecipe.learning_rate)
    parser.add_argument("--seed", type=int, default=TowerRecipe.seed)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = TowerRecipe(steps=options.steps, learning_rate=options.learning_rate, seed=options.seed)
    started = time.monotonic()
    tower, head = train_tower(recipe)
    seconds = round(time.monotonic() - started)
    figure = probe_figure(tower, head, probe_scenes(1000, recipe.seed + 2))
    record = {"probe_top4": round(figure, 4), "probe_scenes": 1000, "seconds": seconds, "recipe": asdict(recipe)}
    save_tower(tower, head, options.output, record)
    logger.info("wrote %s: the probe finds %.3f of the objects of 1000 unseen scenes", options.output, figure)


if __name__ == "__main__":
    main()
