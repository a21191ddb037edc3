"""Measures and page of the recipe comparison."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.ablation_report import EMPTY, make_table, spread
from benchmarks.common.composed_queries import WORDS_ALONE, WORDS_AND_IMAGE, composed_query_measures
from benchmarks.common.interventions import scores_by_weights
from benchmarks.common.recipe_variants import GROUPS
from ciea_hf.demo.image_queries import image_query_measures
from ciea_hf.evaluation import evaluate
from ciea_hf.evaluation.report import text_table
from ciea_hf.evaluation.robustness import corrupt_captions
from ciea_hf.retrieval import DocumentView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.common.ablation_report import Row
    from benchmarks.common.records import Record
    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation import EvaluationResult

WITHOUT_CAPTIONS = "captions removed"
IMAGE_MEASURES = ("own image", "image + text", WORDS_AND_IMAGE, WORDS_ALONE, "same caption", WITHOUT_CAPTIONS)
INTERVENTIONS = ("mean over patches", "shuffled over patches", "inverted within each image")


def measure_images(model: Any, dataset: RetrievalDataset, result: EvaluationResult) -> dict[str, float]:
    """Measure image queries, documents without captions, and replaced gates.

    Args:
        model: A CIEA model.
        dataset: Evaluation data.
        result: Result of the evaluation; nothing is measured unless it is one of whole documents.

    Returns:
        The values of [`image_query_measures`] and [`composed_query_measures`]; MRR@10 of image queries when all
        captions are removed; and, with an extractor, MRR@10 of image queries by intervention on the weights.
    """
    if result.settings["content"] != "full":
        return {}
    measures = image_query_measures(model, dataset) | composed_query_measures(model, dataset)
    view = DocumentView(dataset, captions=corrupt_captions(dataset, drop=1.0))
    measures[WITHOUT_CAPTIONS] = evaluate(model, dataset, content=view).by_kind["image"]["mrr@10"]
    if model.config.use_extractor:
        scores = scores_by_weights(model, dataset)
        measures |= {name: scores[name] for name in INTERVENTIONS}
    return {name: round(value, 5) for name, value in measures.items()}


def measures_table(records: Sequence[Record], names: Sequence[str], groups: Mapping[str, Mapping[str, str]]) -> str:
    """Format further measures as a Markdown table: mean and standard deviation over seeds.

    Args:
        records: Records of finished runs.
        names: Names of the measures.
        groups: Groups of rows, each a mapping from row title to variant.

    Returns:
        The table; empty without any measure.
    """
    lines = [["group", "system", *names]]
    for group, titles in groups.items():
        for title, variant in titles.items():
            found = [record.measures for record in records if record.variant == variant and record.measures]
            columns = [[measures[name] for measures in found if name in measures] for name in names]
            if any(columns):
                lines.append([group, title, *map(_cell, columns)])
    return text_table(lines) if len(lines) > 1 else ""


def _cell(values: Sequence[float]) -> str:
    if not values:
        return EMPTY
    return spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


def make_page(rows: Sequence[Row], records: Sequence[Record], name: str, steps: int) -> str:
    """Generate the result page.

    Args:
        rows: Rows of the main table.
        records: Records of finished runs.
        name: Name of the result files.
        steps: Training steps of the last stage.

    Returns:
        The page in Markdown.
    """
    own = {group: GROUPS[group] for group in list(GROUPS)[:2]}
    devices = Counter(record.device for record in records)
    trained = ", ".join(f"{device} ({count} runs)" for device, count in devices.most_common())
    return f"""# The recipe

Results on OpenMoji Scenes, test split, {len(records[0].ranks)} image queries; all choices were made on the dev
split. The recipe of this package (preset `demo`) trains the language model on texts, aligns patches with words, and
then trains for {steps} steps with 64 queries each. For each seed, all systems with the same language model have the
same start. The table shows mean ± standard deviation over seeds. "vs baseline" is the difference in MRR@10 of image
queries over the seeds that both have, with a paired randomisation test over queries: systems and language models
are compared with MARVEL trained by the same recipe, additions to the paper's recipe with CIEA trained by the
paper's recipe, and the other rows with CIEA.

{make_table(rows, "baseline")}

![chart]({name}.png)

An image as a query should find its own document (mean reciprocal rank, "own image"), also with the text "a picture".
"Words + image" is MRR@10 of queries that name captioned objects in words and show the hidden object as an image, and
"words alone" that of the same words without this image.
"Same caption" is the share of queries whose relevant image ranks above all other images with the same caption. The last
column is MRR@10 of image queries when the captions of all documents are removed in the evaluation.

{measures_table(records, IMAGE_MEASURES, GROUPS)}

Do the gates matter? MRR@10 of image queries when the weights of a trained model are replaced in the evaluation:

{measures_table(records, INTERVENTIONS, own)}

Trained on: {trained}. The configuration of each row is in [{name}.yaml]({name}.yaml).
"""
