"""A small data set and a model without weights, for tests of retrieval and evaluation."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.retrieval.checksums import SEEN

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


def coloured_image(colour: str, size: int = 8) -> Image.Image:
    return Image.new("RGB", (size, size), COLOURS[colour])


def toy_dataset(split: str = "test") -> RetrievalDataset:
    """Three captioned images, an image alone and two texts; one query of each kind and a mixed one."""
    corpus = corpus_from_columns(
        ["img-red", "img-green", "img-blue", "img-bare", "txt-tea", "txt-sea"],
        ["a cup", "a cup", "a boat", None, "tea is a drink", "the sea is wide"],
        [coloured_image("red"), coloured_image("green"), coloured_image("blue"), coloured_image("grey"), None, None],
    )
    queries = queries_from_columns(["q-pic", "q-txt", "q-mix"], ["red cup", "tea drink", "blue boat sea"])
    qrels = {"q-pic": {"img-red": 1}, "q-txt": {"txt-tea": 1}, "q-mix": {"img-blue": 2, "txt-sea": 1}}
    return RetrievalDataset(corpus, queries, qrels, name="toy", split=split)


class ToyEncoder:
    """Embeds words by a hash and colours as the words that name them: exact, order-free and image-aware."""

    fingerprint = "toy"
    width = 64

    def __init__(self) -> None:
        self.documents_seen = 0

    def encode_query(self, inputs: Any, **kwargs: Any) -> torch.Tensor:
        return self._encode(inputs, **kwargs)

    def encode_document(self, inputs: Any, **kwargs: Any) -> torch.Tensor:
        self.documents_seen += len(inputs)
        return self._encode(inputs, **kwargs)

    def _encode(
        self, inputs: Any, batch_size: int, convert_to_tensor: bool, normalize_embeddings: bool, show_progress_bar: bool
    ) -> torch.Tensor:
        if any(item is None or item == "" for item in inputs):
            raise ValueError("the text is empty")
        rows = torch.tensor(np.stack([self._embed(item) for item in inputs]), dtype=torch.float32)
        return torch.nn.functional.normalize(rows, dim=1) if normalize_embeddings else rows

    def _embed(self, item: Any) -> Any:
        text, image = (item.get("text"), item.get("image")) if isinstance(item, dict) else (item, None)
        if isinstance(item, Image.Image):
            text, image = None, item
        words = (text or "").split()
        if image is not None:
            pixel = image.convert("RGB").getpixel((0, 0))
            words.append(next(name for name, colour in COLOURS.items() if colour == pixel))
        return sum(self._word(word) for word in words)

    def _word(self, word: str) -> np.ndarray[Any, Any]:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        return np.random.default_rng(seed).normal(size=self.width)


def folder_content(folder: Path) -> dict[str, bytes]:
    """All files of an index but its locks, and what is noted about the comparison with its checksums."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".locks", SEEN} & set(path.parts)
    }


def dataset_of(texts: dict[str, str], images: dict[str, str] | None = None) -> RetrievalDataset:
    """A data set of texts, and of images by colour."""
    images = images or {}
    ids = [*texts, *(name for name in images if name not in texts)]
    encoded = [coloured_image(images[name]) if name in images else None for name in ids]
    corpus = corpus_from_columns(ids, [texts.get(name) for name in ids], encoded)
    return RetrievalDataset(corpus, toy_dataset().queries, {}, name="toy", split="test")
