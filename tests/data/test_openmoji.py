"""The benchmark that is built on the spot: deterministic, complete in its judgements, fair between splits."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest

from ciea_hf.data import column_values, load_retrieval_dataset
from ciea_hf.data.builders.openmoji.build import (
    SIZES,
    benchmark_folder,
    build_benchmark,
    plan_benchmark,
)
from ciea_hf.data.builders.openmoji.glyphs import choose_concepts
from ciea_hf.data.builders.openmoji.templates import CAPTIONS, IMAGE_QUERIES, TEXT_DOCUMENTS, TEXT_QUERIES, join_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ciea_hf.data.builders.openmoji.build import PlannedDocument, SplitPlan
    from ciea_hf.data.builders.openmoji.templates import Templates

TINY = {"train": 40, "dev": 10, "test": 20}
NAMES = [concept.name for concept in choose_concepts()]


@pytest.fixture(scope="module")
def plans() -> dict[str, SplitPlan]:
    return plan_benchmark()


def named_in(text: str) -> set[int]:
    """Read the concepts back from a text, whatever its template."""
    return {i for i, name in enumerate(NAMES) if re.search(rf"\bthe {re.escape(name)}\b", text)}


def test_sizes(plans: dict[str, SplitPlan]) -> None:
    assert SIZES == {"train": 4000, "dev": 300, "test": 1000}
    for split, plan in plans.items():
        assert sum(d.is_scene for d in plan.documents) == SIZES[split]
        assert sum(not d.is_scene for d in plan.documents) == SIZES[split] // 4
        assert len({d.id for d in plan.documents}) == len(plan.documents)
        assert len({q.id for q in plan.queries}) == len(plan.queries)


def test_a_caption_names_exactly_two_of_four_objects(plans: dict[str, SplitPlan]) -> None:
    for document in plans["test"].documents:
        named = named_in(document.text)
        if document.is_scene:
            assert len(set(document.objects)) == 4
            assert named == set(document.captioned)
            assert len(named) == 2
            assert named < set(document.objects)
        else:
            assert named == set(document.objects)


def test_only_the_image_distinguishes_scenes_of_one_caption(plans: dict[str, SplitPlan]) -> None:
    for plan in plans.values():
        pairs: dict[frozenset[int], list[set[int]]] = {}
        for document in plan.documents:
            if document.is_scene:
                hidden = set(document.objects) - set(document.captioned)
                pairs.setdefault(frozenset(document.captioned), []).append(hidden)
        assert {len(scenes) for scenes in pairs.values()} == {5}
        for scenes in pairs.values():
            assert len(set.union(*scenes)) == 10  # the five share no hidden object


def test_captioned_pairs_are_disjoint_between_splits(plans: dict[str, SplitPlan]) -> None:
    pairs = {s: {frozenset(d.captioned) for d in p.documents if d.is_scene} for s, p in plans.items()}
    assert sum(map(len, pairs.values())) == len(set.union(*pairs.values())) == 1060


def test_an_image_query_names_one_object_that_no_caption_of_its_scene_names(plans: dict[str, SplitPlan]) -> None:
    documents = {d.id: d for d in plans["test"].documents}
    qrels = plans["test"].qrels()
    counts: Counter[tuple[bool, int]] = Counter()
    for query in plans["test"].queries:
        assert named_in(query.text) == set(query.named)
        counts[query.for_scenes, len(query.named)] += 1
        if query.for_scenes:
            unnamed = [set(query.named) - set(documents[d].captioned) for d in qrels[query.id]]
            assert any(len(rest) == 1 for rest in unnamed)
    assert set(counts) == {(True, 2), (True, 3), (False, 2)}
    assert 400 < counts[True, 2] < 600


@pytest.mark.parametrize("split", ["dev", "test"])
def test_judgements_are_complete(plans: dict[str, SplitPlan], split: str) -> None:
    plan = plans[split]
    words = {d.id: named_in(d.text) for d in plan.documents if not d.is_scene}
    scenes = {d.id: set(d.objects) for d in plan.documents if d.is_scene}
    qrels = plan.qrels()
    assert list(qrels) == [query.id for query in plan.queries]
    for query in plan.queries:
        searched = scenes if query.for_scenes else words
        named = named_in(query.text)
        assert qrels[query.id] == {d: 1 for d, holds in searched.items() if named <= holds}
        assert qrels[query.id]


def test_captions_alone_do_not_answer_image_queries(plans: dict[str, SplitPlan]) -> None:
    """The best ranking by captions, ties broken by chance, stays near 0.3 in MRR@10; the objects themselves give 1."""
    plan, rng = plans["test"], np.random.default_rng(0)
    scenes = [d for d in plan.documents if d.is_scene]
    qrels = plan.qrels()

    def mrr(known: Callable[[PlannedDocument], Collection[int]]) -> float:
        total = []
        for query in (q for q in plan.queries if q.for_scenes):
            scores = [len(set(query.named) & set(known(d))) for d in scenes] + 0.5 * rng.random(len(scenes))
            best = [scenes[i].id in qrels[query.id] for i in np.argsort(-scores)[:10]]
            total.append(1 / (best.index(True) + 1) if any(best) else 0)
        return float(np.mean(total))

    assert 0.25 < mrr(lambda d: d.captioned) < 0.35
    assert mrr(lambda d: d.objects) == 1


def fits(text: str, template: str) -> bool:
    names = "|".join(re.escape(name) for name in NAMES)
    listed = rf"the (?:{names})(?:(?:,| and) the (?:{names}))*"
    return re.fullmatch(re.escape(template).replace(re.escape("{names}"), listed), text) is not None


def test_some_templates_are_kept_for_test(plans: dict[str, SplitPlan]) -> None:
    kept = {True: CAPTIONS.test_only, False: TEXT_DOCUMENTS.test_only}
    asked = {True: IMAGE_QUERIES.test_only, False: TEXT_QUERIES.test_only}
    for split, plan in plans.items():
        texts = [(d.text, kept[d.is_scene]) for d in plan.documents[::10]]
        texts += [(q.text, asked[q.for_scenes]) for q in plan.queries[::10]]
        share = np.mean([any(fits(text, template) for template in templates) for text, templates in texts])
        assert (0.2 < share < 0.6) if split == "test" else share == 0


@pytest.mark.parametrize("templates", [CAPTIONS, IMAGE_QUERIES, TEXT_DOCUMENTS, TEXT_QUERIES])
def test_templates_kept_for_test_use_no_new_word(templates: Templates) -> None:
    common = {w for t in (CAPTIONS, IMAGE_QUERIES, TEXT_DOCUMENTS, TEXT_QUERIES) for s in t.common for w in s.split()}
    assert {word for template in templates.test_only for word in template.split()} <= common
    assert not set(templates.test_only) & set(templates.common)


def test_join_names() -> None:
    assert join_names([]) == ""
    assert join_names(["fox"]) == "the fox"
    assert join_names(["fox", "kite"]) == "the fox and the kite"
    assert join_names(["fox", "kite", "owl"]) == "the fox, the kite and the owl"


def test_the_same_seed_builds_the_same_benchmark_and_another_does_not() -> None:
    one, two, other = (build_benchmark(seed, TINY) for seed in (3, 3, 4))
    assert {s: d.fingerprint for s, d in one.items()} == {s: d.fingerprint for s, d in two.items()}
    assert all(one[split].fingerprint != other[split].fingerprint for split in TINY)


def test_images_have_112_pixels_and_kinds_follow() -> None:
    data = build_benchmark(sizes=TINY)["test"]
    assert Counter(data.document_kinds.values()) == {"image": 20, "text": 5}
    assert set(column_values(data.corpus, "modality")) == {"image,text", "text"}
    assert Counter(data.query_kinds().values()) == {"image": 20, "text": 5}
    image = data.corpus[0]["image"]
    assert (image.size, image.mode) == ((112, 112), "RGB")
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("size", [0, 7, -5])
def test_a_size_that_is_not_a_multiple_of_five_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"sizes\['dev'\].*got {size}"):
        plan_benchmark(sizes={"dev": size})


def test_more_scenes_than_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="require 12000 caption pairs; 150 concepts have 11175"):
        plan_benchmark(sizes={"train": 60000})


def test_the_benchmark_is_built_once_and_named_by_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    monkeypatch.setattr("ciea_hf.data.builders.openmoji.build.SIZES", TINY)
    folder = benchmark_folder(tmp_path, progress=False)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    data = load_retrieval_dataset(folder, split="dev")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
    assert data.fingerprint == build_benchmark(sizes=TINY)["dev"].fingerprint
    assert benchmark_folder(tmp_path, seed=1, progress=False) != folder
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card
    assert "CC BY-SA 4.0" in card
    assert "OpenMoji" in card


def test_the_name_demo_loads_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    monkeypatch.setattr("ciea_hf.data.builders.openmoji.build.SIZES", TINY)
    monkeypatch.setenv("CIEA_HF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    data = load_retrieval_dataset("demo", split="dev")  # the name takes precedence over a folder of that name
    assert data.fingerprint == build_benchmark(sizes=TINY)["dev"].fingerprint
    assert list(data.vocabulary) == NAMES
    with pytest.raises(ValueError, match="no split 'validation'"):
        load_retrieval_dataset("demo", split="validation")
    for folder in ("./demo", Path("demo")):
        with pytest.raises(ValueError, match="is not recognised"):
            load_retrieval_dataset(folder)
