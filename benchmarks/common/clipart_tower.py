"""Vision tower of the Open Clip Art benchmark: the architecture of the demonstration, trained on real images.

The labels of an image are words of its caption and its training queries that several training images share. Images that
dev or test queries ask for are excluded from training, as are their copies: the library contains many images twice.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.common.measures import roc_auc
from ciea_hf.data.builders.openmoji.scenes import SCENE_SIZE
from ciea_hf.miniature.vision import PIXEL_MEAN, PIXEL_STD, TowerRecipe, fit_tower, patch_states, save_tower

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from transformers import CLIPVisionModel

    from ciea_hf.data import RetrievalDataset

RECIPE = TowerRecipe(steps=1000, batch_size=64, learning_rate=1.5e-3, warmup_steps=100)
MIN_IMAGES = 10  # minimum number of images that share a label
MAX_SHARE = 0.15  # maximum share of images with a label; excludes the fixed words of the query templates
STOPWORDS = frozenset(("and", "with", "the", "for"))
_WHITE = (1 - PIXEL_MEAN) / PIXEL_STD
_SCALES = (0.65, 1.05)  # size of an augmented image relative to the white square
_SHIFT, _SHEAR, _BATCH = 0.25, 0.2, 128
_RECORD = "probe.json"


@dataclass(frozen=True)
class LabelledImages:
    """Images of a split and the words that describe them.

    Attributes:
        pixels: 8-bit pixels, (images, 112, 112, 3).
        words: Words in lower case of the caption and the queries of each image.
    """

    pixels: NDArray[np.uint8]
    words: list[set[str]]

    def without(self, *others: LabelledImages) -> LabelledImages:
        """Return the images that do not occur in others with identical pixels."""
        excluded = {image.tobytes() for other in others for image in other.pixels}
        kept = [row for row, image in enumerate(self.pixels) if image.tobytes() not in excluded]
        return LabelledImages(self.pixels[kept], [self.words[row] for row in kept])


def read_images(dataset: RetrievalDataset) -> LabelledImages:
    """Read the images that are relevant to a query of a split, sorted by their ids."""
    rows = {name: row for row, name in enumerate(dataset.corpus_ids)}
    queries = dict(zip(dataset.queries["id"], dataset.queries["text"], strict=True))
    words: dict[str, set[str]] = defaultdict(set)
    for query, judged in dataset.qrels.items():
        for name, grade in judged.items():
            if grade > 0 and dataset.document_kinds[name] == "image":
                words[name] |= _words(queries[query])
    pixels = []
    for name in sorted(words):
        row = dataset.corpus[rows[name]]
        words[name] |= _words(row["text"] or "")
        pixels.append(np.asarray(row["image"].convert("RGB").resize((SCENE_SIZE, SCENE_SIZE))))
    return LabelledImages(np.stack(pixels), [words[name] for name in sorted(words)])


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]{3,}", text.lower()))


def choose_labels(words: Sequence[set[str]]) -> list[str]:
    """Select the labels: words that several images share, except very frequent words and stopwords."""
    counts = Counter(word for image_words in words for word in image_words)
    maximum = MAX_SHARE * len(words)
    return sorted(word for word, count in counts.items() if MIN_IMAGES <= count <= maximum and word not in STOPWORDS)


def label_matrix(words: Sequence[set[str]], labels: Sequence[str]) -> Tensor:
    """Return which labels each image has, (images, labels)."""
    return torch.tensor([[label in image_words for label in labels] for image_words in words], dtype=torch.float32)


def augmented(pixel_values: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, scale, shear and mirror each image by its own random amounts.

    Args:
        pixel_values: Normalised images, (images, 3, height, width).
        generator: Source of the random numbers.

    Returns:
        The augmented images, of the same shape. Areas outside the original image are white.
    """
    count = len(pixel_values)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale, shear = 1 / draw(*_SCALES), draw(-_SHEAR, _SHEAR)
    mirrored = torch.where(draw(-1, 1) < 0, -1.0, 1.0)
    rows = ((scale * mirrored, shear, draw(-_SHIFT, _SHIFT)), (-shear, scale, draw(-_SHIFT, _SHIFT)))
    maps = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (images, 2, 3)
    # grid_sample pads with zeros. With white subtracted, zero is white.
    grid = F.affine_grid(maps, list(pixel_values.shape), align_corners=False)
    return F.grid_sample(pixel_values - _WHITE, grid, align_corners=False) + _WHITE


def batches(images: LabelledImages, present: Tensor, recipe: TowerRecipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw random training batches.

    Args:
        images: Training images.
        present: Labels of each image, (images, labels).
        recipe: Recipe with number and size of the batches and the random seed.

    Yields:
        Pixel values (batch, 3, 112, 112) and labels (batch, labels).
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        rows = torch.randint(len(present), (recipe.batch_size,), generator=generator)
        yield augmented(_normalised(images.pixels[rows.numpy()]), generator), present[rows]


def _normalised(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).sub_(PIXEL_MEAN).div_(PIXEL_STD)


def word_auc(tower: CLIPVisionModel, head: nn.Linear, images: LabelledImages, present: Tensor) -> float:
    """Measure how well the tower recognises words.

    Args:
        tower: Vision tower.
        head: Classifier of patches; the score of a label is its maximum over the patches.
        images: Evaluation images.
        present: Labels of each image, (images, labels). Images without labels are ignored.

    Returns:
        Probability that a label of an image scores above another label, averaged over images.
    """
    batch_scores = []
    with torch.inference_mode():
        for start in range(0, len(images.pixels), _BATCH):
            states = patch_states(tower, _normalised(images.pixels[start : start + _BATCH]))
            batch_scores.append(head(states).amax(dim=1))
    aucs = []
    for row, has in zip(torch.cat(batch_scores), present, strict=True):
        if has.any():
            aucs.append(roc_auc(row[has > 0].numpy(), row[has == 0].numpy()))
    return float(np.mean(aucs))


def train_clipart_tower(folder: Path, splits: Mapping[str, RetrievalDataset], recipe: TowerRecipe) -> None:
    """Train the tower and save it, unless the folder contains a tower of the same recipe and data.

    Args:
        folder: Folder of the tower.
        splits: Data by split. The tower is trained on images of `"train"` that do not occur in `"dev"` or `"test"`, and
            evaluated on images of `"dev"`.
        recipe: Training recipe.
    """
    provenance = {"recipe": asdict(recipe), "data": {name: split.fingerprint for name, split in splits.items()}}
    record = folder / _RECORD
    if record.is_file() and provenance.items() <= json.loads(record.read_text(encoding="utf-8")).items():
        return
    held_out = read_images(splits["dev"])
    training = read_images(splits["train"]).without(held_out, read_images(splits["test"]))
    labels = choose_labels(training.words)
    present = label_matrix(held_out.words, labels)
    started = time.monotonic()
    tower, head = fit_tower(
        recipe,
        batches(training, label_matrix(training.words, labels), recipe),
        len(labels),
        lambda tower, head: word_auc(tower, head, held_out, present),
    )
    result = {
        "word_auc_dev": round(word_auc(tower, head, held_out, present), 4),
        "images": len(training.pixels),
        "labels": labels,
        "seconds": round(time.monotonic() - started),
    }
    save_tower(tower, head, folder, {**provenance, **result})
