"""Tests of the recipe comparison: its variants and their overrides, and its measures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.common import composed_queries as composed
from benchmarks.common.composed_queries import composed_queries, composed_query_measures
from benchmarks.common.recipe_report import measure_images, measures_table
from benchmarks.common.recipe_variants import GROUPS, VARIANTS
from benchmarks.common.variants import stage_overrides
from ciea_hf.data.builders.openmoji.build import build_benchmark, plan_benchmark, vocabulary
from ciea_hf.evaluation import evaluate
from tests.benchmarks.test_ablation import record
from tests.support.helpers import tiny_model
from tests.support.toy_retrieval import toy_dataset


def test_every_variant_has_a_row_and_every_row_a_variant() -> None:
    assert {name for titles in GROUPS.values() for name in titles.values()} == set(VARIANTS)


def test_each_part_changes_one_option() -> None:
    def options(name: str) -> dict[str, object]:
        return stage_overrides(VARIANTS[name], 400)["in_batch"]

    for part in ("dropout", "reverse", "gate", "uncaptioned"):
        names = {"dropout": {"dropout", "extractor_dropout"}, "reverse": {"reverse_weight"},
                 "gate": {"extractor_weights"}, "uncaptioned": {"extract_uncaptioned"}}[part]  # fmt: skip
        for variant, reference in ((f"alone_{part}", "paper"), (f"without_{part}", "ciea")):
            own, other = options(variant), options(reference)
            assert {name for name in own.keys() | other.keys() if own.get(name) != other.get(name)} == names, variant


def test_variants_of_ciea_have_an_extractor_although_the_alignment_has_none() -> None:
    without = {"caption_only", "marvel", "complementary_loss", *(f"marvel_{name}" for name in ("bart", "bert", "gpt2"))}
    for name, variant in VARIANTS.items():
        if variant.preset == "demo":
            used = stage_overrides(variant, 400)["in_batch"].get("use_extractor") is True
            assert used == (name not in without), name


def test_the_alignment_alone_is_that_of_the_recipe() -> None:
    names = ("contrast", "max_steps", "learning_rate", "max_grad_norm", "eval_steps", "warmup_steps")
    alone, recipe = (stage_overrides(VARIANTS[name], 400)["align"] for name in ("alone_alignment", "ciea"))
    assert [alone.get(name) for name in names] == [recipe.get(name) for name in names]
    assert "align" not in stage_overrides(VARIANTS["without_alignment"], 400)


def test_measures_of_images_are_tabulated_with_their_spread() -> None:
    model, dataset = tiny_model(extractor_weights="gate"), toy_dataset()
    measures = measure_images(model, dataset, evaluate(model, dataset))
    assert measure_images(model, dataset, evaluate(model, dataset, content="caption")) == {}
    assert set(measures) == {"own image", "image + text", "same caption", "captions removed", "mean over patches",
                             "shuffled over patches", "inverted within each image"}  # fmt: skip
    assert all(0 <= value <= 1 for value in measures.values())
    records = [record("ciea", 0, [1]), record("ciea", 1, [1]), record("marvel", 0, [1])]
    records[0].measures["own image"], records[1].measures["own image"] = 0.25, 0.75
    table = measures_table(records, ["own image"], {"systems": {"CIEA": "ciea", "MARVEL": "marvel"}})
    assert "0.500 ± 0.354" in table
    assert "MARVEL" not in table
    assert measures_table(records[2:], ["own image"], {"systems": {"MARVEL": "marvel"}}) == ""


def test_a_model_without_extractor_has_no_weights_to_replace() -> None:
    model, dataset = tiny_model(use_extractor=False), toy_dataset()
    assert "shuffled over patches" not in measure_images(model, dataset, evaluate(model, dataset))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_options_of_all_variants_are_valid(name: str) -> None:
    assert stage_overrides(VARIANTS[name], 400)["in_batch"]["max_steps"] == 400


def test_composed_queries_show_what_the_caption_leaves_out() -> None:
    plan = plan_benchmark(sizes={"train": 10, "dev": 5, "test": 10})["test"]
    queries = composed_queries(plan)
    names = vocabulary()
    documents = {document.id: document for document in plan.documents}
    for query in plan.queries:
        if not query.for_scenes:
            assert query.id not in queries
            continue
        *captioned, hidden = query.named
        assert all(f"the {names[concept]}" in queries[query.id]["text"] for concept in captioned)
        assert f"the {names[hidden]}" not in queries[query.id]["text"]
        assert any(hidden not in documents[name].captioned for name in plan.qrels()[query.id])
    pixels = [np.asarray(query["image"]) for query in queries.values()]
    assert {image.shape for image in pixels} == {(112, 112, 3)}
    assert len({image.tobytes() for image in pixels}) == len(pixels)


def test_composed_queries_are_measured_on_the_embedded_benchmark_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(extractor_weights="gate")
    assert composed_query_measures(model, toy_dataset()) == {}
    sizes = {"train": 5, "dev": 5, "test": 10}
    monkeypatch.setattr(composed, "plan_benchmark", lambda: plan_benchmark(sizes=sizes))
    measures = composed_query_measures(model, build_benchmark(sizes=sizes)["test"])
    assert set(measures) == {"words + image", "words alone"}
    assert all(0 < value <= 1 for value in measures.values())
