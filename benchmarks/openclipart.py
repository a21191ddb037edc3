"""Real pictures: caption only, MARVEL and CIEA on Open Clip Art, several seeds, one budget, beside BM25.

  ciea data build openclipart --source DIR --output data/openclipart
  python -m benchmarks.openclipart --data data/openclipart    # goes on where the last call stopped
  python -m benchmarks.openclipart --report                   # draws the table from what is there, trains nothing

First a miniature vision tower is trained on the pictures of the training queries and their words. The
trained systems also answer the queries that they were trained on, and those of the test split with pictures taken away:
what they learnt, and what of it carries over.
"""

from __future__ import annotations

import hashlib
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
    """Train the tower and the systems, or go on with them; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help=f"the data set, in WebQA's form (default: {DATA})")
    parser.add_argument("--tower-steps", type=int, default=RECIPE.steps, help=f"of the tower (default: {RECIPE.steps})")
    add_run_arguments(parser, seeds=3, work=WORK)
    parsed = parser.parse_args(arguments)
    if not parsed.data.is_dir():
        parser.error(f"there is no data set at {parsed.data}: `ciea data build openclipart` makes it")
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
        ("--dataset", str(parsed.data), "--vision-model", str(tower)),
        {"train": splits["train"].fingerprint, "tower": hashlib.sha256(_weights(tower)).hexdigest()},
    )
    chosen = [] if parsed.report else list(SYSTEMS.values())
    runs.finish(chosen, parsed.seeds, lambda: report(runs, splits["train"], tower, parsed.output))
    return 0


def _weights(tower: Path) -> bytes:
    return (tower / "model.safetensors").read_bytes()


def report(runs: Runs, train: RetrievalDataset, tower: Path, output: Path) -> None:
    """Draw the tables and the chart from whatever is there, BM25 beside it."""
    records = runs.records()
    if not records:
        say(f"no finished run in {runs.folder}: there is no table to draw")
        return
    rows = with_bm25(records, runs.test)
    probe = json.loads((tower / "probe.json").read_text(encoding="utf-8"))
    content = {**runs.configuration(records), "tower": probe}
    others = runs.repeat("train", train), runs.repeat("captions", runs.test, "caption")
    page = make_page(rows, runs, probe) + carrying_over(records, *others)
    write_result(output, NAME, page, draw_chart(rows), content, runs.test)


def with_bm25(records: Sequence[Record], test: RetrievalDataset) -> list[Row]:
    """Summarise the runs, and BM25 as if it had a run of each seed, which are all the same."""
    run = bm25_run(test)
    metrics, ranks = rounded_metrics(score_run(run, test)), first_ranks(run, test)
    seeds = sorted({record.seed for record in records})
    same = [Record(BM25, seed, 0, {}, test.fingerprint, None, 0.0, metrics, ranks) for seed in seeds]
    variants = {**SYSTEMS, BM25: replace(SYSTEMS["marvel"], name=BM25)}
    rows = make_rows([*records, *same], {"Open Clip Art": TITLES}, variants)
    nothing = tuple(float("nan") for _ in rows[0].deviations)
    return [replace(row, seeds=1, deviations=nothing) if row.title == "BM25" else row for row in rows]


def make_page(rows: Sequence[Row], runs: Runs, probe: Mapping[str, object]) -> str:
    """Write the table as a Markdown page."""
    test = runs.test
    kinds = list(test.query_kinds().values())
    return f"""# Open Clip Art

Real pictures with their authors' titles for captions, {len(test.corpus)} documents, test split: {kinds.count("image")}
image queries, each words of a title with tags that the title lacks, and {kinds.count("text")} text queries. All
systems start from the same warm-up of a language model of random weights (one for each seed) and train for
{runs.steps} steps of 64 queries. The vision tower is trained from scratch on {probe["pictures"]} pictures: that a word
of an unseen picture scores above one that it lacks has a probability of {probe["word_auc_dev"]} (dev split). Mean ±
standard deviation over seeds; "vs MARVEL" is the difference in MRR@10 of image queries, with the p-value of a paired
randomisation test over queries (their values averaged over seeds).

{make_table(rows)}

![chart](openclipart.png)

The resolved configuration of every row is in [openclipart.yaml](openclipart.yaml).
"""


def carrying_over(test: Sequence[Record], train: Sequence[Record], captions: Sequence[Record]) -> str:
    """Write what was learnt, and what of it carries over, as a section of the page."""
    lines = [["system", "seeds", "training queries", "test queries", "test queries, captions alone"]]
    for title, name in TITLES.items():
        sides = [{r.seed: r.metrics["image"]["mrr@10"] for r in side if r.variant == name}
                 for side in (train, test, captions)]  # fmt: skip
        shared = sorted(set.intersection(*map(set, sides)))
        if shared:
            values = np.array([[side[seed] for seed in shared] for side in sides])
            deviations = values.std(axis=1, ddof=1) if len(shared) > 1 else np.full(len(sides), np.nan)
            cells = map(spread, values.mean(axis=1), deviations)
            lines.append([title, str(len(shared)), *cells])
    return f"""
## What carries over

MRR@10 of image queries: those that the systems were trained on; those of the test split; and these again, where the
trained systems are shown no picture. Mean ± standard deviation over seeds.

{text_table(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
