"""Scenes of the localisation benchmark: which patches show which object, and what is asked about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.common.measures import object_maps
from ciea_hf.data.builders.openmoji.glyphs import CONCEPT_COUNT, CONCEPT_SEED
from ciea_hf.data.builders.openmoji.scenes import compose_scene, glyph_atlas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.data.builders.openmoji.build import SplitPlan


@dataclass(frozen=True)
class Scene:
    """A scene with its caption, its queries, and the object of each pixel.

    Attributes:
        image: The scene.
        caption: Its caption, which names two of its objects.
        query: Text of a query that names captioned objects and one that the caption does not name.
        query_image: Image of that object alone.
        target: Number of that object.
        objects: Object numbers of the pixels, (height, width); -1 for background.
        hidden: Numbers of the objects that the caption does not name.
        captioned: Numbers of the objects that it names.
    """

    image: Image.Image
    caption: str
    query: str
    query_image: Image.Image
    target: int
    objects: NDArray[np.int64]
    hidden: tuple[int, ...]
    captioned: tuple[int, ...]


def sample_scenes(dataset: RetrievalDataset, plan: SplitPlan, count: int, seed: int) -> list[Scene]:
    """Choose scenes of the test split at random.

    Args:
        dataset: Test split of the embedded benchmark.
        plan: Plan of the split.
        count: Number of scenes; all if the split has fewer.
        seed: Random seed of the choice and of the images of the queries.

    Returns:
        The scenes.
    """
    documents = [document for document in plan.documents if document.is_scene]
    queries = [query for query in plan.queries if query.for_scenes]  # one for each scene, in their order
    maps = object_maps(documents)
    rng = np.random.default_rng(seed)
    atlas = glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)
    scenes = []
    for row in rng.permutation(len(documents))[:count].tolist():
        document, query = documents[row], queries[row]
        hidden = tuple(number for number in document.objects if number not in document.captioned)
        target = next(number for number in query.named if number in hidden)
        scenes.append(
            Scene(
                image=dataset.corpus[row]["image"],
                caption=document.text,
                query=query.text,
                query_image=Image.fromarray(compose_scene([target], rng, atlas)),
                target=target,
                objects=maps[row],
                hidden=hidden,
                captioned=document.captioned,
            )
        )
    return scenes


def coverage(shown: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Compute the share of each patch that is covered.

    Args:
        shown: True for covered pixels, (height, width); the grid divides both.
        grid: Rows and columns of the patches.

    Returns:
        Shares, (rows, columns).
    """
    rows, columns = grid
    tiles = shown.reshape(rows, shown.shape[0] // rows, columns, shown.shape[1] // columns)
    shares: NDArray[np.float64] = tiles.mean(axis=(1, 3))
    return shares
