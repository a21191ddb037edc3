"""Open Clip Art, a data set of real images: caption only, MARVEL, CIEA and BM25, with equal training budget.

First a miniature vision tower is trained on the images of the training queries, with their words as labels. The trained
systems are also evaluated on the training queries, and on the test queries with captions alone. A further call trains
the runs that are missing.

Examples:
  ciea data build openclipart --source DIR --output data/openclipart
  python -m benchmarks.openclipart --data data/openclipart
  python -m benchmarks.openclipart --report
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.ablation_report import draw_chart, make_rows, make_table, spread
from benchmarks.common.clipart_tower import RECIPE, train_clipart_tower
from benchmarks.common.files import add_run_arguments, make_parser, say, write_result
from benchmarks.common.records import Record, first_ranks, rounded_metrics
from benchmarks.common.runs import Runs
from benchmarks.common.variants import VARIANTS
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.evaluation import score_run
from ciea_hf.evaluation.baselines import bm25_run
from ciea_hf.evaluation.report import text_table
from ciea_hf.utils import short_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.common.ablation_report import Row
    from benchmarks.common.variants import Variant
    from ciea_hf.data import RetrievalDataset

DATA, WORK = Path("data/openclipart"), Path("runs/openclipart")
NAME, BM25 = "openclipart", "bm25"
SYSTEMS: Mapping[str, Variant] = {name: VARIANTS[name] for name in ("caption_only", "marvel", "ciea")}
TITLES = {"BM25": BM25, "caption only": "caption_only", "MARVEL": "marvel", "CIEA": "ciea"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the tower and the missing runs, and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("openclipart", __doc__)
    parser.add_argument("--data", type=Path, default=DATA, help=f"data set in the WebQA format (default: {DATA})")
    parser.add_argument(
        "--tower-steps", type=int, default=RECIPE.steps, help=f"training steps of the tower (default: {RECIPE.steps})"
    )
    add_run_arguments(parser, seeds=3, work=WORK)
    parsed = parser.parse_args(arguments)
    if not parsed.data.is_dir():
        parser.error(f"data set not found: {parsed.data}; build it with `ciea data build openclipart`")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("ciea_hf.miniature.vision").setLevel(logging.INFO)
    splits = {split: load_retrieval_dataset(parsed.data, split) for split in ("train", "dev", "test")}
    tower = parsed.work / "tower"
    train_clipart_tower(tower, splits, replace(RECIPE, steps=parsed.tower_steps))
    runs = Runs(
        SYSTEMS,
        parsed.steps,
        parsed.warm_up_steps,
        parsed.output / NAME,
        parsed.work,
        splits["test"],
        data_args=("--dataset", str(parsed.data), "--vision-model", str(tower)),
        provenance={"train": splits["train"].fingerprint, "tower": short_hash(_weights(tower), 64)},
    )
    chosen = [] if parsed.report else list(SYSTEMS.values())
    runs.finish(chosen, parsed.seeds, lambda: report(runs, splits["train"], tower, parsed.output))
    return 0


def _weights(tower: Path) -> bytes:
    return (tower / "model.safetensors").read_bytes()


def report(runs: Runs, train: RetrievalDataset, tower: Path, output: Path) -> None:
    """Generate tables and chart from the finished runs and BM25.

    Args:
        runs: The runs.
        train: Training data, whose queries the systems are also evaluated on.
        tower: Folder of the vision tower.
        output: Folder of the results.
    """
    records = runs.records()
    if not records:
        say(f"no finished runs in {runs.folder}; no table was written")
        return
    rows = with_bm25(records, runs.test)
    probe = json.loads((tower / "probe.json").read_text(encoding="utf-8"))
    training_queries = runs.repeat("train", train)
    captions_alone = runs.repeat("captions", runs.test, "caption")
    page = make_page(rows, runs, probe) + generalisation(records, training_queries, captions_alone)
    write_result(output, NAME, page, draw_chart(rows), {**runs.configuration(records), "tower": probe}, runs.test)


def with_bm25(records: Sequence[Record], test: RetrievalDataset) -> list[Row]:
    """Summarise the runs and BM25.

    BM25 has no seeds. Its result is repeated for every seed of the runs, so that its difference to MARVEL is averaged
    over the same seeds, and its row is shown as a single run.
    """
    run = bm25_run(test)
    metrics, ranks = rounded_metrics(score_run(run, test)), first_ranks(run, test)
    seeds = sorted({record.seed for record in records})
    repeated = [Record(BM25, seed, 0, {}, test.fingerprint, None, 0.0, metrics, ranks) for seed in seeds]
    variants = {**SYSTEMS, BM25: replace(SYSTEMS["marvel"], name=BM25)}
    rows = []
    for row in make_rows([*records, *repeated], {"Open Clip Art": TITLES}, variants):
        if row.title == "BM25":
            rows.append(replace(row, seeds=1, deviations=tuple(float("nan") for _ in row.deviations)))
        else:
            rows.append(row)
    return rows


def make_page(rows: Sequence[Row], runs: Runs, probe: Mapping[str, object]) -> str:
    """Generate the first section of the result page.

    Args:
        rows: Rows of the table.
        runs: The runs.
        probe: Training record of the vision tower.

    Returns:
        The section in Markdown.
    """
    test = runs.test
    kinds = list(test.query_kinds().values())
    return f"""# Open Clip Art

Real images with their authors' titles as captions: {len(test.corpus)} documents, and a test split with
{kinds.count("image")} image queries and {kinds.count("text")} text queries. An image query consists of words of the
title and of tags that the title lacks. For each seed, all systems start from the same warm-up of a randomly
initialised language model and train for {runs.steps} steps with 64 queries each. The vision tower is trained from
scratch on {probe["images"]} images. On images of the dev split, which it has not seen, a label of the image scores
above a label that the image lacks with a probability of {probe["word_auc_dev"]}. The table shows mean ± standard
deviation over seeds. "vs MARVEL" is the difference in MRR@10 of image queries to MARVEL. The p-values are from paired
randomisation tests over queries, whose values are averaged over seeds.

{make_table(rows)}

![chart](openclipart.png)

The configuration of each row is in [openclipart.yaml](openclipart.yaml).
"""


def generalisation(test: Sequence[Record], train: Sequence[Record], captions: Sequence[Record]) -> str:
    """Generate the section of the result page that compares training queries, test queries, and captions alone.

    Args:
        test: Records of the test queries.
        train: Records of the training queries.
        captions: Records of the test queries where documents consist of captions alone.

    Returns:
        The section in Markdown, over the seeds that a system has in all three conditions.
    """
    lines = [["system", "seeds", "training queries", "test queries", "test queries, captions alone"]]
    for title, name in TITLES.items():
        conditions = [_image_mrr(records, name) for records in (train, test, captions)]
        shared = sorted(set.intersection(*map(set, conditions)))
        if shared:
            values = np.array([[condition[seed] for seed in shared] for condition in conditions])
            deviations = values.std(axis=1, ddof=1) if len(shared) > 1 else np.full(len(conditions), np.nan)
            cells = map(spread, values.mean(axis=1), deviations)
            lines.append([title, str(len(shared)), *cells])
    return f"""
## Generalisation

MRR@10 of image queries: training queries; test queries; and test queries where the trained systems are given captions
without images. Mean ± standard deviation over seeds.

{text_table(lines)}
"""


def _image_mrr(records: Sequence[Record], variant: str) -> dict[int, float]:
    return {record.seed: record.metrics["image"]["mrr@10"] for record in records if record.variant == variant}


if __name__ == "__main__":
    sys.exit(main())
