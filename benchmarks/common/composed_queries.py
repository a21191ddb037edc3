"""Queries of words and an image: words for what a caption says, and an image of what it leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ciea_hf.data.builders.openmoji.build import plan_benchmark, vocabulary
from ciea_hf.data.builders.openmoji.glyphs import CONCEPT_COUNT, CONCEPT_SEED
from ciea_hf.data.builders.openmoji.scenes import compose_scene, glyph_atlas
from ciea_hf.data.builders.openmoji.templates import IMAGE_QUERIES, join_names
from ciea_hf.evaluation.evaluator import as_run
from ciea_hf.evaluation.metrics import ranking_metrics
from ciea_hf.retrieval.building import encode_corpus

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset
    from ciea_hf.data.builders.openmoji.build import SplitPlan

SEED = 1  # of the images of hidden objects; the scenes of the corpus are drawn with others
WORDS_AND_IMAGE, WORDS_ALONE = "words + image", "words alone"


def composed_query_measures(model: Any, dataset: RetrievalDataset) -> dict[str, float]:
    """Measure queries whose words name captioned objects and whose image shows the hidden object alone.

    Args:
        model: A CIEA model.
        dataset: Test split of OpenMoji Scenes; nothing is measured on other data.

    Returns:
        MRR@10 of words and image as one input, and of the words alone.
    """
    plan = plan_benchmark()["test"]
    queries = composed_queries(plan)
    if not queries.keys() <= dataset.qrels.keys():
        return {}
    index = encode_corpus(model, dataset).index("flat", model.device)
    measures = {}
    for name, inputs in (
        (WORDS_AND_IMAGE, list(queries.values())),
        (WORDS_ALONE, [query["text"] for query in queries.values()]),
    ):
        run = as_run(list(queries), index.search(model.encode_query(inputs, batch_size=64), 10))
        qrels = {query: dataset.qrels[query] for query in queries}
        measures[name] = ranking_metrics(run, qrels, [10])["mrr@10"]
    return measures


def composed_queries(plan: SplitPlan) -> dict[str, dict[str, Any]]:
    """Compose the queries of a split: text and image by query id.

    Args:
        plan: Plan of the split; each of its image queries names captioned objects and, as the last one, a hidden one.

    Returns:
        Inputs of `encode_query` by id.
    """
    names, atlas, rng = vocabulary(), glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED), np.random.default_rng(SEED)
    queries = {}
    for query in plan.queries:
        if query.for_scenes:
            *captioned, hidden = query.named
            text = IMAGE_QUERIES.common[0].format(names=join_names([names[concept] for concept in captioned]))
            queries[query.id] = {"text": text, "image": Image.fromarray(compose_scene([hidden], rng, atlas))}
    return queries
