"""Page and chart of the Open Clip Art benchmark, generated from the records of finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.ablation_report import EMPTY, Row, draw_chart, make_rows, make_table, spread
from benchmarks.common.clipart_variants import SETTINGS
from benchmarks.common.files import say, write_result
from benchmarks.common.records import Record, first_ranks, rounded_metrics
from benchmarks.common.variants import Variant
from ciea_hf.evaluation import score_run
from ciea_hf.evaluation.baselines import bm25_run
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.common.runs import Runs
    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval import DocumentView

NAME, BM25, TIES = "openclipart", "bm25", "ties at mean"


@dataclass(frozen=True)
class Condition:
    """Evaluation of trained systems under another condition.

    Attributes:
        title: Title of the column.
        name: Name of the folder of the records.
        data: Evaluation data.
        content: Content of documents; None is that of each system.
    """

    title: str
    name: str
    data: RetrievalDataset
    content: str | DocumentView | None = None


def report(runs: Mapping[str, Runs], conditions: Sequence[Condition], output: Path) -> None:
    """Generate tables and chart from the finished runs and BM25.

    Args:
        runs: The runs by setting.
        conditions: Further conditions that all systems are evaluated under.
        output: Folder of the results.
    """
    records = {name: own.records() for name, own in runs.items()}
    if not any(records.values()):
        say(f"no finished runs in {output / NAME}; no table was written")
        return
    test = next(iter(runs.values())).test
    rows = [_bm25_row(test)]
    lines = [["group", "system", "seeds", TIES, *(condition.title for condition in conditions)]]
    for name, own in runs.items():
        rows += make_rows(records[name], SETTINGS[name].groups, own.variants)
        repeated = [own.repeat(condition.name, condition.data, condition.content) for condition in conditions]
        lines += _condition_lines(name, records[name], repeated)
    configuration = {name: own.configuration(records[name]) for name, own in runs.items() if records[name]}
    write_result(output, NAME, make_page(rows, lines, test), draw_chart(rows), configuration, test)


def _bm25_row(test: RetrievalDataset) -> Row:
    run = bm25_run(test)
    record = Record(
        BM25, 0, 0, {}, test.fingerprint, None, 0.0, rounded_metrics(score_run(run, test)), first_ranks(run, test)
    )
    (row,) = make_rows([record], {"words": {"BM25": BM25}}, {BM25: Variant(BM25, baseline=BM25)})
    return row


def _condition_lines(setting: str, records: Sequence[Record], repeated: Sequence[Sequence[Record]]) -> list[list[str]]:
    lines = []
    for group, titles in SETTINGS[setting].groups.items():
        for title, name in titles.items():
            found = [record for record in records if record.variant == name]
            if found:
                ties = [record.measures[TIES] for record in found if TIES in record.measures]
                columns = [
                    ties,
                    *([_image_mrr(record) for record in other if record.variant == name] for other in repeated),
                ]
                lines.append([group, title, str(len(found)), *map(_cell, columns)])
    return lines


def _image_mrr(record: Record) -> float:
    return record.metrics["image"]["mrr@10"]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return EMPTY
    return spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


def make_page(rows: Sequence[Row], lines: Sequence[Sequence[str]], test: RetrievalDataset) -> str:
    """Generate the result page.

    Args:
        rows: Rows of the main table.
        lines: Cells of the second table, its head first.
        test: Evaluation data.

    Returns:
        The page in Markdown.
    """
    kinds = list(test.query_kinds().values())
    return f"""# Open Clip Art

Real images with their authors' titles as captions: {len(test.corpus)} documents, and a test split with
{kinds.count("image")} image queries and {kinds.count("text")} text queries. An image query consists of words of the
title and of tags that the title lacks. The options were chosen on OpenMoji Scenes and on the dev split.

- Miniature towers: the language model is randomly initialised and warmed up on the texts, the vision tower is trained
  on the images of the training queries, and all systems of a seed start from the same warm-up.
- Pretrained towers: all-MiniLM-L6-v2 and EfficientNet-lite0, without a warm-up. With a frozen text encoder, "caption
  only" is all-MiniLM-L6-v2 itself, and embeddings of texts stay those of this encoder.

The table shows mean ± standard deviation over seeds. "vs caption only" is the difference in MRR@10 of image queries to
the system of the same group that sees no image. The p-values are from paired randomisation tests over queries, whose
values are averaged over seeds. Equal scores are ordered by document id, as trec_eval does.

{make_table(rows, "caption only")}

![chart](openclipart.png)

MRR@10 of image queries when documents of equal score are in random order ("{TIES}": titles repeat); on the training
queries; and on the test queries with captions alone, with all captions removed, and with all captions exchanged between
images.

{text_table(lines)}

The configuration of each row is in [openclipart.yaml](openclipart.yaml).
"""
