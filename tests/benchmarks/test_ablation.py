"""Tests of the ablation: table rows, order of the runs, recorded overrides, and reuse of records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from benchmarks import ablation
from benchmarks.common import runs, variant_runs
from benchmarks.common.ablation_report import make_page, make_rows, make_table, rows_against_ciea
from benchmarks.common.records import Record, first_ranks, read_records
from benchmarks.common.variants import GROUPS, VARIANTS, select_variants, stage_overrides, training_order
from ciea_hf.evaluation.significance import randomisation_test
from tests.support.helpers import tiny_model
from tests.support.toy_retrieval import toy_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.common.ablation_report import Row


def record(variant: str, seed: int, ranks: list[int]) -> Record:
    mrr = float(np.mean([1 / rank if rank else 0 for rank in ranks]))
    metrics = {"image": {"mrr@10": mrr, "ndcg@10": mrr / 2, "recall@1": 0.25}, "text": {"mrr@10": 0.75}}
    return Record(
        variant=variant,
        seed=seed,
        steps=400,
        overrides={},
        data="data",
        revision=None,
        training_seconds=1.0,
        metrics=metrics,
        ranks=ranks,
    )


def row_of(rows: Sequence[Row], title: str) -> Row:
    return next(row for row in rows if row.title == title)


def test_rows_have_means_deviations_and_a_paired_test_over_common_seeds() -> None:
    marvel = [record("marvel", 0, [2, 2, 0, 1]), record("marvel", 1, [4, 2, 0, 1])]
    ciea = [record("ciea", 0, [1, 1, 5, 1]), record("ciea", 1, [1, 2, 0, 1]), record("ciea", 2, [0, 0, 0, 0])]
    rows = make_rows([*ciea, *marvel])
    row = row_of(rows, "CIEA (both)")
    means = [(1 + 1 + 0.2 + 1) / 4, (1 + 0.5 + 0 + 1) / 4, 0.0]
    assert row.seeds == 3
    assert row.means[0] == pytest.approx(np.mean(means))
    assert row.deviations[0] == pytest.approx(np.std(means, ddof=1))
    # only seeds 0 and 1, which MARVEL has as well, averaged per query
    own, reference = np.array([1, 0.75, 0.1, 1]), np.array([0.375, 0.5, 0, 1])
    assert row.difference == pytest.approx((own - reference).mean())
    assert row.p_value == pytest.approx(randomisation_test(reference, own)) == pytest.approx(2 / 2**3)
    assert row_of(rows, "MARVEL").difference is None


def test_variants_of_ciea_are_also_compared_with_ciea() -> None:
    records = [record("marvel", 0, [4, 4]), record("ciea", 0, [1, 2]), record("uniform", 0, [1, 1])]
    rows = rows_against_ciea(records)
    assert {row.title for row in rows} == {"complement", "uniform", "extracted, delete", "0.5"}
    assert row_of(rows, "uniform").difference == pytest.approx(0.25)
    assert row_of(rows, "complement").difference is None
    page = make_page(make_rows(records), rows, "ablation_9_steps", 9, 2)
    assert "vs CIEA" in page
    assert "(ablation_9_steps.png)" in page
    assert "vs CIEA" not in make_page(make_rows(records[:2]), rows_against_ciea(records[:2]), "ablation", 9, 2)


def test_rows_without_runs_are_omitted_and_single_runs_have_no_deviation() -> None:
    rows = make_rows([record("lambda_1", 0, [1, 0])])
    assert [(row.group, row.title) for row in rows] == [("lambda", "1")]
    table = make_table(rows)
    assert table.splitlines()[2].split("|")[1:-1][3].strip() == "0.500"
    assert "±" not in table


def test_other_language_models_are_compared_with_marvel_of_the_same_model() -> None:
    records = [record("marvel", 0, [1, 1]), record("ciea_bert", 0, [1, 2])]
    assert row_of(make_rows(records), "BERT, CIEA").difference is None
    records.append(record("marvel_bert", 0, [2, 2]))
    assert row_of(make_rows(records), "BERT, CIEA").difference == pytest.approx(0.25)


def test_first_seeds_of_all_variants_run_before_further_seeds_of_important_variants() -> None:
    order = [
        (variant.name, seed) for variant, seed in training_order(select_variants(["mask", "marvel", "image_only"]), 3)
    ]
    assert order == [
        ("marvel", 0), ("mask", 0), ("image_only", 0),
        ("marvel", 1), ("mask", 1), ("marvel", 2), ("mask", 2),
        ("image_only", 1), ("image_only", 2),
    ]  # fmt: skip
    assert len(list(training_order(select_variants(None), 5))) == 5 * len(VARIANTS)
    with pytest.raises(ValueError, match="unknown variant 'nonsense'; choose from caption_only, marvel"):
        select_variants(["nonsense"])


def test_every_variant_has_a_row_and_every_row_a_variant() -> None:
    assert {name for titles in GROUPS.values() for name in titles.values()} == set(VARIANTS)


def test_overrides_match_the_variants() -> None:
    overrides = {name: stage_overrides(variant, 400)["in_batch"] for name, variant in VARIANTS.items()}
    assert overrides["ciea"]["lambda"] == 0.5
    assert overrides["marvel"]["use_extractor"] is False
    assert overrides["marvel"]["lambda"] == 0
    assert overrides["extractor"]["lambda"] == 0
    assert "use_extractor" not in overrides["extractor"]
    assert overrides["complementary_loss"]["use_extractor"] is False
    assert overrides["complementary_loss"]["lambda"] == 0.5
    assert overrides["projected_mask"]["complement_patches"] == "projected"
    assert overrides["projected_mask"]["query_reduction"] == "mask"
    assert "lambda" not in overrides["lambda_0.1"], "0.1 is the default of the training"
    assert overrides["image_only"]["content"] == "image"
    assert overrides["uniform"]["extractor_weights"] == "uniform"
    warm_ups = {name: stage_overrides(variant, 400)["warm_up"]["text_model"] for name, variant in VARIANTS.items()}
    assert warm_ups["ciea_bert"] == warm_ups["marvel_bert"] == "demo-bert"
    assert warm_ups["ciea"] == warm_ups["marvel"] == "demo"


def test_ablation_continues_and_skips_outdated_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched: list[str] = []

    def launch(folder: Path, arguments: Sequence[str], preset: str) -> Path:
        assert preset == "demo_paper"
        launched.append(folder.name.rsplit("-", 1)[0])
        stage = folder / arguments[arguments.index("--stage") + 1]
        if not stage.exists():
            tiny_model(use_extractor="false" not in arguments).save_pretrained(stage / "best")
            (stage / "run.json").write_text(json.dumps({"git_revision": "abc"}), encoding="utf-8")
            (stage / "result.json").write_text(json.dumps({"seconds": 12.34}), encoding="utf-8")
        return folder

    data = toy_dataset()
    monkeypatch.setattr(runs, "launch_training", launch)
    monkeypatch.setattr(variant_runs, "load_dataset", lambda *_: data)
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

    replace(first[0], overrides={"in_batch": {"lambda": 7}}).write(folder)
    assert ablation.main([*command, "--report"]) == 0
    assert launched == []
    assert "skipped 1 run(s)" in capsys.readouterr().out
    assert ablation.main(command) == 0
    assert launched == ["warm-up-t5-seed0", "ciea-seed0"]


def test_first_ranks_cover_image_queries_only() -> None:
    data = toy_dataset()
    images = [query for query, kind in data.query_kinds().items() if kind == "image"]
    wanted = next(iter(data.qrels[images[0]]))
    others = [name for name in data.corpus_ids if name not in data.qrels[images[0]]][:2]
    run = {images[0]: {others[0]: 3.0, others[1]: 2.0, wanted: 1.0}}
    assert first_ranks(run, data) == [3] + [0] * (len(images) - 1)


@pytest.mark.parametrize(("steps", "name"), [(400, "ablation"), (1200, "ablation_1200_steps")])
def test_committed_page_is_generated_from_the_committed_records(steps: int, name: str) -> None:
    results = Path(ablation.__file__).parent / "results"
    records = read_records(results / "ablation" / f"{steps}-steps")
    page = make_page(make_rows(records), rows_against_ciea(records), name, steps, len(records[0].ranks))
    assert (results / f"{name}.md").read_text(encoding="utf-8") == page


def test_committed_records_have_the_current_overrides() -> None:
    records = read_records(Path(ablation.__file__).parent / "results" / "ablation" / "400-steps")
    expected = {name: stage_overrides(variant, 400) for name, variant in VARIANTS.items()}
    for run in records:
        assert run.overrides == json.loads(json.dumps(expected[run.variant])), run.variant
