"""Patch features of a frozen tower, computed once and read from disk, so that later epochs decode no images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ciea_hf.files import atomic_write, write_json
from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.training.distributed import barrier, process_rank, world_size
from ciea_hf.utils import claim_manifest, short_hash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.retrieval.documents import DocumentView

MANIFEST = "manifest.json"
SHARD_SIZE = 4096  # images


class VisionFeatures:
    """Patch features by document id, memory-mapped.

    Args:
        folder: Folder written by [`cache_vision_features`].
    """

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self._positions: dict[str, tuple[int, int]] = {}
        self._shards: list[Path] = []
        for number in range(manifest["shards"]):
            path = _shard(folder, number)
            ids = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            self._positions.update((identifier, (number, row)) for row, identifier in enumerate(ids))
            self._shards.append(path)
        self._open: dict[int, np.ndarray[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, document: str) -> torch.Tensor:
        """Return the features of a document's image, (P, vision width), in float16.

        Raises:
            ValueError: If the image could not be decoded when the features were computed.
        """
        if document not in self._positions:
            raise ValueError("the image could not be decoded when the vision features were computed")
        number, row = self._positions[document]
        if number not in self._open:
            self._open[number] = np.load(self._shards[number], mmap_mode="r", allow_pickle=False)
        return torch.from_numpy(np.array(self._open[number][row]))

    def __getstate__(self) -> dict[str, Any]:
        """Drop the memory maps: each worker opens its own."""
        return {**self.__dict__, "_open": {}}


def features_key(model: CIEAModel) -> str:
    """Hash everything but the images that features depend on: the tower's weights, the layer, the preprocessing."""
    parts = {
        "tower": model_fingerprint(model.vision_model),
        "layer": model.config.vision_feature_layer,
        "patches": model.config.image_seq_length,
        "preprocessing": model.processor.image_processor.to_dict(),
    }
    return short_hash(json.dumps(parts, sort_keys=True, default=str))


def cache_vision_features(
    model: CIEAModel, view: DocumentView, folder: Path, batch_size: int = 64, progress: bool = True
) -> VisionFeatures:
    """Compute the features of all images of a corpus, or continue an interrupted call.

    In a distributed run every process must call this; the processes share the work.

    Args:
        model: Model whose tower computes the features, on its device.
        view: View of the corpus; its policy applies to images that cannot be decoded, which get no features.
        folder: Folder of the shards, in float16.
        batch_size: Number of images per forward pass.
        progress: Whether to show a progress bar.

    Returns:
        The features.

    Raises:
        ValueError: If the folder holds features of another tower, preprocessing or corpus, or an image cannot be
            decoded and the policy is `"fail"`.
    """
    rows = [row for row, kind in enumerate(view.kinds) if kind == "image"]
    shards = -(-len(rows) // SHARD_SIZE)
    claim_manifest(
        folder / MANIFEST, {"tower": features_key(model), "corpus": view.corpus_fingerprint, "shards": shards}
    )
    model.vision_model.eval()
    own = {}
    for number in range(process_rank(), shards, world_size()):
        own[number] = rows[number * SHARD_SIZE : (number + 1) * SHARD_SIZE]
    total = sum(map(len, own.values()))
    bar = tqdm(total=total, desc="Vision features", unit="image", disable=not progress)
    with bar, torch.no_grad():
        for number, shard_rows in own.items():
            path = _shard(folder, number)
            if not path.exists():
                _write_shard(model, view, shard_rows, path, batch_size)
            bar.update(len(shard_rows))
    barrier()
    return VisionFeatures(folder)


def _write_shard(model: CIEAModel, view: DocumentView, rows: Sequence[int], path: Path, batch_size: int) -> None:
    """Write a shard; it counts once the array is there, so the array comes last."""
    ids: list[str] = []
    blocks: list[np.ndarray[Any, Any]] = []
    for start in range(0, len(rows), batch_size):
        images = []
        for row in rows[start : start + batch_size]:
            try:
                images.append(model.preprocess_image(view.image(row)))
                ids.append(view.ids[row])
            except (ValueError, FileNotFoundError) as error:
                view.report_broken(row, error)
        if images:
            pixels = model.processor.pixel_values(images)
            blocks.append(model.get_vision_features(pixels.to(model.device)).to(torch.float16).cpu().numpy())
    empty = np.empty((0, model.config.image_seq_length, model.config.vision_hidden_size), np.float16)
    write_json(path.with_suffix(".json"), ids, indent=None)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(blocks) if blocks else empty, allow_pickle=False)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"
