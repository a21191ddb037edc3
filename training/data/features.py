"""Patch features of a frozen tower, computed once and read from disk: later epochs decode no image."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.training.distributed import barrier, process_rank, world_size
from ciea_hf.utils import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.data.reader import CorpusReader

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SHARD_SIZE = 4096  # images


class VisionFeatures:
    """Patch features by document id, memory-mapped.

    Args:
        folder: As :func:`cache_vision_features` writes it.
    """

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self._places: dict[str, tuple[int, int]] = {}
        self._shards: list[Path] = []
        for number in range(manifest["shards"]):
            path = _shard(folder, number)
            ids = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            self._places.update((identifier, (number, row)) for row, identifier in enumerate(ids))
            self._shards.append(path)
        self._open: dict[int, np.ndarray[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, document: str) -> torch.Tensor:
        """Features of one document's image, (P, vision width), fp16.

        Raises:
            ValueError: If its image could not be decoded when the features were made.
        """
        if document not in self._places:
            raise ValueError("its image could not be decoded when the vision features were made")
        number, row = self._places[document]
        if number not in self._open:
            self._open[number] = np.load(self._shards[number], mmap_mode="r", allow_pickle=False)
        return torch.from_numpy(np.array(self._open[number][row]))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: a worker opens its own."""
        return {**self.__dict__, "_open": {}}


def features_key(model: CIEAModel) -> str:
    """Hash what the features depend on beside the images: the tower's weights, the layer, the preprocessing."""
    parts = {
        "tower": model_fingerprint(model.vision_model),
        "layer": model.config.vision_feature_layer,
        "patches": model.config.image_seq_length,
        "preprocessing": model.processor.image_processor.to_dict(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def cache_vision_features(
    model: CIEAModel,
    reader: CorpusReader,
    folder: Path,
    corpus_fingerprint: str,
    batch_size: int = 64,
    on_broken_image: str = "skip",
    progress: bool = True,
) -> VisionFeatures:
    """Compute the features of every image of a corpus, or go on where an interrupted call stopped.

    The shards are shared out among the processes of a distributed run, each of which has to call this.

    Args:
        model: Whose tower it is, on the device that computes.
        reader: Of the corpus.
        folder: Where the shards (fp16) stand, or come to stand.
        corpus_fingerprint: Of the corpus.
        batch_size: Images of a forward pass.
        on_broken_image: ``"skip"`` leaves out images that cannot be decoded, ``"fail"`` raises.
        progress: Show a bar.

    Returns:
        The features.

    Raises:
        ValueError: If the folder holds features of another tower, preprocessing or corpus, or an image is broken.
    """
    rows = [row for row, kind in enumerate(reader.kinds) if kind == "image"]
    shards = -(-len(rows) // SHARD_SIZE)
    _claim(folder, {"tower": features_key(model), "corpus": corpus_fingerprint, "shards": shards})
    model.vision_model.eval()
    mine = range(process_rank(), shards, world_size())
    parts = {number: rows[number * SHARD_SIZE : (number + 1) * SHARD_SIZE] for number in mine}
    bar = tqdm(total=sum(map(len, parts.values())), desc="vision features", unit="image", disable=not progress)
    with bar, torch.no_grad():
        for number, part in parts.items():
            path = _shard(folder, number)
            if not path.exists():
                _write_shard(model, reader, part, path, batch_size, on_broken_image)
            bar.update(len(part))
    barrier()
    return VisionFeatures(folder)


def _write_shard(
    model: CIEAModel, reader: CorpusReader, rows: Sequence[int], path: Path, batch_size: int, on_broken_image: str
) -> None:
    ids: list[str] = []
    blocks: list[np.ndarray[Any, Any]] = []
    for start in range(0, len(rows), batch_size):
        images = []
        for row in rows[start : start + batch_size]:
            try:
                images.append(reader.image(row))
                ids.append(reader.ids[row])
            except (ValueError, FileNotFoundError) as error:
                if on_broken_image == "fail":
                    raise type(error)(f"document {reader.ids[row]!r}: {error}") from error
                logger.warning("document %r has no features: %s", reader.ids[row], error)
        if images:
            pixels = model.processor.image_processor(images, return_tensors="pt")["pixel_values"]
            blocks.append(model.get_vision_features(pixels.to(model.device)).to(torch.float16).cpu().numpy())
    width = (0, model.config.image_seq_length, model.config.vision_hidden_size)
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(ids), encoding="utf-8")
    with atomic_write(path) as temporary, temporary.open("wb") as file:  # the shard counts once this file is there
        np.save(file, np.concatenate(blocks) if blocks else np.empty(width, np.float16), allow_pickle=False)


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / MANIFEST
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in manifest if found.get(name) != manifest[name]]
        if differing:
            raise ValueError(
                f"`cache_vision_features`: {folder} holds features of another {' and '.join(differing)} (weights, "
                "layer, preprocessing or images have changed): remove it or name another folder"
            )
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(manifest), encoding="utf-8")


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"
