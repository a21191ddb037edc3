from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import ablation, complementarity, robustness
from benchmarks.common import interventions, measures, runs
from benchmarks.common.ablation_report import make_page, make_rows, make_table, rows_against_ciea
from benchmarks.common.files import model_titles
from benchmarks.common.records import Record, first_ranks, read_records
from benchmarks.common.variants import GROUPS, VARIANTS, choose, in_order, settings
from ciea_hf.data.builders.openmoji.build import build_benchmark, plan_benchmark
from ciea_hf.data.builders.openmoji.glyphs import CONCEPT_COUNT, CONCEPT_SEED
from ciea_hf.data.builders.openmoji.scenes import compose_scene, glyph_atlas
from ciea_hf.evaluation.significance import randomisation_test
from tests.support.helpers import picture, tiny_model
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"train": 5, "dev": 5, "test": 40}


def record(variant: str, seed: int, ranks: list[int], **changes) -> Record:
    mrr = float(np.mean([1 / rank if rank else 0 for rank in ranks]))
    metrics = {"image": {"mrr@10": mrr, "ndcg@10": mrr / 2, "recall@1": 0.25}, "text": {"mrr@10": 0.75}}
    values = {"settings": {}, "data": "data", "revision": None, "training_seconds": 1.0, "metrics": metrics}
    return Record(variant=variant, seed=seed, steps=400, ranks=ranks, **{**values, **changes})


def row_of(rows, title):
    return next(row for row in rows if row.title == title)


def test_rows_hold_means_deviations_and_a_paired_test_over_shared_seeds():
    marvel = [record("marvel", 0, [2, 2, 0, 1]), record("marvel", 1, [4, 2, 0, 1])]
    ciea = [record("ciea", 0, [1, 1, 5, 1]), record("ciea", 1, [1, 2, 0, 1]), record("ciea", 2, [0, 0, 0, 0])]
    rows = make_rows([*ciea, *marvel])
    found = row_of(rows, "CIEA (both)")
    means = [(1 + 1 + 0.2 + 1) / 4, (1 + 0.5 + 0 + 1) / 4, 0.0]
    assert found.seeds == 3
    assert found.means[0] == pytest.approx(np.mean(means))
    assert found.deviations[0] == pytest.approx(np.std(means, ddof=1))
    # seeds 0 and 1 alone, which MARVEL has too, averaged for each query
    mine, theirs = np.array([1, 0.75, 0.1, 1]), np.array([0.375, 0.5, 0, 1])
    assert found.difference == pytest.approx((mine - theirs).mean())
    assert found.p_value == pytest.approx(randomisation_test(theirs, mine)) == pytest.approx(2 / 2**3)
    assert row_of(rows, "MARVEL").difference is None


def test_forms_of_ciea_are_also_compared_with_ciea():
    runs = [record("marvel", 0, [4, 4]), record("ciea", 0, [1, 2]), record("uniform", 0, [1, 1])]
    forms = rows_against_ciea(runs)
    assert {row.title for row in forms} == {"complement", "uniform", "extracted, delete", "0.5"}
    assert row_of(forms, "uniform").difference == pytest.approx(0.25)
    assert row_of(forms, "complement").difference is None
    page = make_page(make_rows(runs), forms, "ablation_9_steps", 9, 2)
    assert "vs CIEA" in page
    assert "(ablation_9_steps.png)" in page
    assert "vs CIEA" not in make_page(make_rows(runs[:2]), rows_against_ciea(runs[:2]), "ablation", 9, 2)


def test_rows_without_runs_are_absent_and_single_runs_have_no_deviation():
    rows = make_rows([record("lambda_1", 0, [1, 0])])
    assert [(row.group, row.title) for row in rows] == [("lambda", "1")]
    table = make_table(rows)
    assert table.splitlines()[2].split("|")[1:-1][3].strip() == "0.500"
    assert "±" not in table


def test_other_language_models_are_compared_with_their_own_marvel():
    records = [record("marvel", 0, [1, 1]), record("ciea_bert", 0, [1, 2])]
    assert row_of(make_rows(records), "BERT, CIEA").difference is None
    records.append(record("marvel_bert", 0, [2, 2]))
    assert row_of(make_rows(records), "BERT, CIEA").difference == pytest.approx(0.25)


def test_work_begins_with_the_first_seed_of_all_then_important_variants():
    order = [(variant.name, seed) for variant, seed in in_order(choose(["mask", "marvel", "image_only"]), 3)]
    assert order == [
        ("marvel", 0), ("mask", 0), ("image_only", 0),
        ("marvel", 1), ("mask", 1), ("marvel", 2), ("mask", 2),
        ("image_only", 1), ("image_only", 2),
    ]  # fmt: skip
    assert len(list(in_order(choose(None), 5))) == 5 * len(VARIANTS)
    with pytest.raises(ValueError, match="no variant 'nonsense'; choose from caption_only, marvel"):
        choose(["nonsense"])


def test_every_variant_has_a_row_and_every_row_a_variant():
    assert {name for titles in GROUPS.values() for name in titles.values()} == set(VARIANTS)


def test_settings_are_what_the_variants_say():
    told = {name: settings(variant, 400)["in_batch"] for name, variant in VARIANTS.items()}
    assert told["ciea"]["lambda"] == 0.5
    assert told["marvel"]["use_extractor"] is False
    assert told["marvel"]["lambda"] == 0
    assert told["extractor"]["lambda"] == 0
    assert "use_extractor" not in told["extractor"]
    assert told["complementary_loss"]["use_extractor"] is False
    assert told["complementary_loss"]["lambda"] == 0.5
    assert told["projected_mask"]["complement_patches"] == "projected"
    assert told["projected_mask"]["query_reduction"] == "mask"
    assert "lambda" not in told["lambda_0.1"], "0.1 is the training's default"
    assert told["image_only"]["content"] == "image"
    assert told["uniform"]["extractor_weights"] == "uniform"
    warm_ups = {name: settings(variant, 400)["warm_up"]["text_model"] for name, variant in VARIANTS.items()}
    assert warm_ups["ciea_bert"] == warm_ups["marvel_bert"] == "demo-bert"
    assert warm_ups["ciea"] == warm_ups["marvel"] == "demo"


def test_ablation_goes_on_and_leaves_stale_records_aside(tmp_path, monkeypatch, capsys):
    launched = []

    def launch(folder: Path, arguments):
        launched.append(folder.name.rsplit("-", 1)[0])
        stage = folder / arguments[arguments.index("--stage") + 1]
        if not stage.exists():
            tiny_model(use_extractor="false" not in arguments).save_pretrained(stage / "best")
            (stage / "run.json").write_text(json.dumps({"git_revision": "abc"}), encoding="utf-8")
            (stage / "result.json").write_text(json.dumps({"seconds": 12.34}), encoding="utf-8")
        return folder

    data = toy_dataset()
    monkeypatch.setattr(runs, "launch_training", launch)
    monkeypatch.setattr(ablation, "load_dataset", lambda *_: data)
    command = ["--seeds", "1", "--only", "marvel", "ciea", "--output", str(tmp_path), "--work", str(tmp_path / "work")]
    assert ablation.main(command) == 0
    assert launched == ["warm-up-t5-seed0", "marvel-seed0", "warm-up-t5-seed0", "ciea-seed0"]
    folder = tmp_path / "ablation" / "400-steps"
    first = read_records(folder)
    assert [r.variant for r in first] == ["ciea", "marvel"]
    assert first[0].reciprocal_ranks.mean() == pytest.approx(first[0].metrics["image"]["mrr@10"], abs=1e-5)
    page = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "CIEA (both)" in page
    assert "image only" not in page
    assert Image.open(tmp_path / "ablation.png").width > 400

    launched.clear()
    assert ablation.main(command) == 0
    assert launched == []

    replace(first[0], settings={"in_batch": {"lambda": 7}}).write(folder)
    assert ablation.main([*command, "--report"]) == 0
    assert launched == []
    assert "left aside: 1 run(s)" in capsys.readouterr().out
    assert ablation.main(command) == 0
    assert launched == ["warm-up-t5-seed0", "ciea-seed0"]


def test_first_ranks_count_image_queries_alone():
    data = toy_dataset()
    images = [query for query, kind in data.query_kinds().items() if kind == "image"]
    wanted = next(iter(data.qrels[images[0]]))
    others = [name for name in data.corpus_ids if name not in data.qrels[images[0]]][:2]
    run = {images[0]: {others[0]: 3.0, others[1]: 2.0, wanted: 1.0}}
    assert first_ranks(run, data) == [3] + [0] * (len(images) - 1)


def test_models_are_named_by_their_run():
    assert model_titles(["demo/runs/marvel/in_batch/best", "folder/ciea"]) == ["marvel", "ciea"]
    same = ["runs/0/align/best", "runs/0/hard/best"]
    assert model_titles(same) == same


@pytest.mark.parametrize("script", [robustness, complementarity])
def test_missing_models_are_said_to_come_from_the_demo(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="run `make demo` first"):
        script.main([])


def test_robustness_measures_each_share_once(monkeypatch):
    calls = []
    evaluate = __import__("ciea_hf.evaluation", fromlist=["evaluate"]).evaluate
    monkeypatch.setattr("ciea_hf.evaluation.evaluate", lambda *a, **k: calls.append(k) or evaluate(*a, **k))
    models = [tiny_model(seed=seed) for seed in (0, 1)]
    points = robustness.measure(models, toy_dataset(), [0.0, 1.0], seed=0)
    assert [(point.spoiler, point.share) for point in points] == [
        ("drop", 0.0), ("drop", 1.0), ("swap", 0.0), ("swap", 1.0),
    ]  # fmt: skip
    assert len(calls) == 2 * 3, "nothing spoiled is the same for both spoilers"
    assert points[0].comparison == points[2].comparison != points[1].comparison
    for point in points:
        low, high = point.intervals[0]
        assert low <= point.comparison.a <= high
    page = robustness.page(points, ["a", "b"])
    assert page.count("captions exchanged") == 2


def test_roc_auc_counts_pairs():
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 5, 20), rng.integers(0, 4, 30)
    pairs = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    assert measures.roc_auc(positives, negatives) == pytest.approx(np.mean(pairs))
    assert measures.roc_auc(np.array([2.0]), np.array([1.0, 0.0])) == 1.0


def test_concept_scores_in_closed_form():
    labels = np.array([[measures.HIDDEN, 0], [measures.CAPTIONED, 0], [measures.ABSENT, 0]])
    scores = measures.concept_scores(np.array([[0.5, 9], [0.25, 9], [0.75, 9]]), labels)
    assert [values.tolist() for values in scores] == [[0.0], [0.0], [1.0], [-0.5], [-0.25]]
    with pytest.raises(ValueError, match="no concept is captioned"):
        measures.concept_scores(np.zeros((2, 2)), np.zeros((2, 2), int))


def test_objects_are_found_where_the_benchmark_drew_them():
    scenes = [document for document in plan_benchmark(0, SIZES)["test"].documents if document.is_scene]
    rows = build_benchmark(0, SIZES)["test"].corpus.select(range(len(scenes)))
    atlas = glyph_atlas(CONCEPT_COUNT, CONCEPT_SEED)
    empty, rng = [np.zeros_like(glyphs) for glyphs in atlas], np.random.default_rng((0, 2))
    maps = measures.object_maps(scenes)
    for scene, row, objects in zip(scenes, rows, maps, strict=True):
        background = compose_scene(scene.objects, rng, empty)
        changed = (np.asarray(row["image"]).astype(int) != background).any(axis=-1)
        assert set(np.unique(objects)) == {-1, *scene.objects}
        assert changed[objects >= 0].mean() > 0.99
        assert changed[objects < 0].mean() < 0.05, "the rims of glyphs, which are half transparent"


def test_patches_are_told_apart():
    labels = np.array([[measures.CAPTIONED, measures.HIDDEN, measures.ABSENT]])
    maps = np.full((1, 4, 4), -1)
    maps[0, 0, 0] = 0  # a quarter of the first patch
    maps[0, :2, 2] = 1
    maps[0, 2, 1], maps[0, 3, 0] = 0, 1  # mixed
    assert measures.patch_kinds(maps, labels, 4).tolist() == [
        [measures.CAPTIONED, measures.HIDDEN, -1, measures.ABSENT]
    ]


def test_weights_are_replaced_and_put_back(monkeypatch):
    model, batch = tiny_model(), {"text": "a cat", "image": picture()}
    processed = model.processor(text=[batch["text"]], images=[batch["image"]])

    def weights():
        with torch.no_grad():
            return model(**processed, output_patches=True).complement_weights[0]

    own, seen = weights(), []
    result = SimpleNamespace(by_kind={"image": {"mrr@10": 0.5}})
    monkeypatch.setattr(interventions, "evaluate", lambda *_: seen.append(weights()) or result)
    assert list(interventions.scores_by_weights(model, None).values()) == [0.5] * 4
    same, mean, shuffled, inverted = seen
    torch.testing.assert_close(same, own)
    torch.testing.assert_close(mean, own.mean().expand(len(own)))
    torch.testing.assert_close(shuffled.sort().values, own.sort().values)
    assert inverted.argmax() == own.argmin() != inverted.argmin()
    torch.testing.assert_close(weights(), own)


@pytest.mark.parametrize("use_extractor", [True, False])
def test_complementarity_of_a_model(use_extractor):
    data, plan = build_benchmark(0, {**SIZES, "test": 100})["test"], plan_benchmark(0, {**SIZES, "test": 100})["test"]
    measured = measures.measure(tiny_model(use_extractor=use_extractor), data, plan)
    assert len(measured.scores) == (3 if use_extractor else 2)
    assert bool(measured.weights) is bool(measured.interventions) is use_extractor
    found = {"some": measured}
    page = complementarity.page(found)
    assert ("Complement weights" in page) is use_extractor
    buffer = BytesIO()
    complementarity.draw(found).savefig(buffer, format="png")
    assert Image.open(buffer).width > 400
