"""The vision tower of the Open Clip Art benchmark: the demonstration's, trained on real pictures and their words.

Its labels are the words of captions and training queries that several training pictures share. No picture that a dev or
test query asks for is among those it is trained on, nor a copy of one: the library holds many pictures twice.
"""

from __future__ import annotations

import json
import logging
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

logger = logging.getLogger(__name__)

RECIPE = TowerRecipe(steps=1000, batch_size=64, learning_rate=1.5e-3, warmup_steps=100)
FEWEST = 10  # pictures that share a word
LARGEST_SHARE = 0.15  # of all pictures: words of the queries' phrases are in more
STOPWORDS = frozenset(("and", "with", "the", "for"))
_WHITE = (1 - PIXEL_MEAN) / PIXEL_STD
_SCALES = (0.65, 1.05)  # of a picture on the white square
_SHIFT, _SHEAR, _BATCH = 0.25, 0.2, 128
_RECORD = "probe.json"


@dataclass(frozen=True)
class Pictures:
    """Pictures of a split and what is said of them.

    Attributes:
        pixels: (pictures, 112, 112, 3), 8 bits.
        words: Of the caption and the queries of each, in lower case.
    """

    pixels: NDArray[np.uint8]
    words: list[set[str]]

    def without(self, *others: Pictures) -> Pictures:
        """Leave out the pictures that others hold too, pixel for pixel."""
        known = {picture.tobytes() for other in others for picture in other.pixels}
        kept = [row for row, picture in enumerate(self.pixels) if picture.tobytes() not in known]
        return Pictures(self.pixels[kept], [self.words[row] for row in kept])


def read_pictures(dataset: RetrievalDataset) -> Pictures:
    """Read the pictures that a split's queries ask for."""
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
    return Pictures(np.stack(pixels), [words[name] for name in sorted(words)])


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]{3,}", text.lower()))


def choose_labels(words: Sequence[set[str]]) -> list[str]:
    """Choose the words that are worth learning: in several pictures, and not in very many."""
    counts = Counter(word for some in words for word in some)
    most = LARGEST_SHARE * len(words)
    return sorted(word for word, count in counts.items() if FEWEST <= count <= most and word not in STOPWORDS)


def label_matrix(words: Sequence[set[str]], labels: Sequence[str]) -> Tensor:
    """Say which labels each picture has, (pictures, labels)."""
    return torch.tensor([[label in some for label in labels] for some in words], dtype=torch.float32)


def augmented(pixel_values: Tensor, generator: torch.Generator) -> Tensor:
    """Move, scale, shear and mirror pictures, each in its own way; what comes in from outside is white."""
    count = len(pixel_values)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale, shear = 1 / draw(*_SCALES), draw(-_SHEAR, _SHEAR)
    mirrored = torch.where(draw(-1, 1) < 0, -1.0, 1.0)
    rows = ((scale * mirrored, shear, draw(-_SHIFT, _SHIFT)), (-shear, scale, draw(-_SHIFT, _SHIFT)))
    maps = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (pictures, 2, 3)
    grid = F.affine_grid(maps, list(pixel_values.shape), align_corners=False)
    return F.grid_sample(pixel_values - _WHITE, grid, align_corners=False) + _WHITE


def batches(pictures: Pictures, present: Tensor, recipe: TowerRecipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw a recipe's batches: pixel values (batch, 3, 112, 112) and labels present (batch, labels)."""
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        rows = torch.randint(len(present), (recipe.batch_size,), generator=generator)
        yield augmented(_normalised(pictures.pixels[rows.numpy()]), generator), present[rows]


def _normalised(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).sub_(PIXEL_MEAN).div_(PIXEL_STD)


def word_auc(tower: CLIPVisionModel, head: nn.Linear, pictures: Pictures, present: Tensor) -> float:
    """Probability that a word of a picture scores above a word that it lacks, averaged over pictures."""
    with torch.inference_mode():
        scores = torch.cat(
            [
                head(patch_states(tower, _normalised(pictures.pixels[start : start + _BATCH]))).amax(dim=1)
                for start in range(0, len(pictures.pixels), _BATCH)
            ]
        )
    pairs = [(row, has) for row, has in zip(scores, present, strict=True) if has.any()]
    return float(np.mean([roc_auc(row[has > 0].numpy(), row[has == 0].numpy()) for row, has in pairs]))


def train_clipart_tower(folder: Path, splits: Mapping[str, RetrievalDataset], recipe: TowerRecipe) -> None:
    """Train the tower and write it, unless it stands there already, of the same recipe and pictures.

    Args:
        folder: Where to.
        splits: The pictures of `"train"` and their words are learnt, those of `"dev"` and `"test"` aside; those
            of `"dev"` measure how well.
        recipe: How.
    """
    made_of = {"recipe": asdict(recipe), "data": {name: split.fingerprint for name, split in splits.items()}}
    record = folder / _RECORD
    if record.is_file() and made_of.items() <= json.loads(record.read_text(encoding="utf-8")).items():
        return
    unseen = read_pictures(splits["dev"])
    seen = read_pictures(splits["train"]).without(unseen, read_pictures(splits["test"]))
    labels = choose_labels(seen.words)
    present = label_matrix(unseen.words, labels)
    started = time.monotonic()
    tower, head = fit_tower(
        recipe,
        batches(seen, label_matrix(seen.words, labels), recipe),
        len(labels),
        lambda tower, head: word_auc(tower, head, unseen, present),
    )
    found = {
        "word_auc_dev": round(word_auc(tower, head, unseen, present), 4),
        "pictures": len(seen.pixels),
        "labels": labels,
        "seconds": round(time.monotonic() - started),
    }
    save_tower(tower, head, folder, {**made_of, **found})
