"""Localisation: do the maps of `ciea_hf.explain` mark the objects that they should, and does the score depend on them?

A scene of OpenMoji Scenes shows four objects, of which its caption names two. A query names one of the others: its map
should mark the patches of that object, whether the query is a text or an image of the object. Without a query, the map
should mark the objects that the caption does not name.

The measurements of each model are saved as a small JSON file, and the page shows all models that were measured on the
same scenes. `accelerate launch training/train.py --preset demo_paper --output-dir demo/runs/paper` trains a model with
the paper's recipe.

Examples:
  python -m benchmarks.localisation                 # CIEA as trained by `make demo`
  python -m benchmarks.localisation demo/runs/paper/in_batch/best
  python -m benchmarks.localisation --report
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.common.files import CIEA, make_parser, model_titles, require_models, say, write_result
from benchmarks.common.localisation_measures import Record, measure_model
from benchmarks.common.localisation_report import draw, make_page
from benchmarks.common.localisation_scenes import sample_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ciea_hf.data import RetrievalDataset

NAME = "localisation"
SCENES = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the models and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser(NAME, __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"CIEA models (default: {CIEA})")
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"number of scenes (default: {SCENES})")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the selected scenes (default: 0)")
    parser.add_argument("--report", action="store_true", help="write the page of the measured models")
    parsed = parser.parse_args(arguments)
    from ciea_hf.loading import load_dataset

    if not parsed.report:
        require_models(parsed.models or [CIEA])
    dataset = load_dataset("demo", "test")
    folder = parsed.output / NAME
    if not parsed.report:
        measure(parsed.models or [CIEA], dataset, folder, parsed.scenes, parsed.seed)
    rows = []
    for record in (Record.read(path) for path in sorted(folder.glob("*.json"))):
        if (record.data, record.scenes, record.seed) == (dataset.fingerprint, parsed.scenes, parsed.seed):
            rows += record.measurements
    if not rows:
        raise SystemExit(f"no model has been measured under these conditions: {folder} has no such record")
    titles = list(dict.fromkeys(row.model for row in rows))
    configuration = {"models": titles, "scenes": parsed.scenes, "seed": parsed.seed}
    write_result(parsed.output, NAME, make_page(rows, parsed.scenes), draw(rows), configuration, dataset)
    return 0


def measure(models: Sequence[str], dataset: RetrievalDataset, folder: Path, count: int, seed: int) -> None:
    """Measure models and write their records.

    Args:
        models: Folders of the models.
        dataset: Test split of the embedded benchmark.
        folder: Folder of the records.
        count: Number of scenes.
        seed: Random seed of their choice.
    """
    from ciea_hf.data.builders.openmoji.build import plan_benchmark
    from ciea_hf.loading import load_encoder

    scenes = sample_scenes(dataset, plan_benchmark()["test"], count, seed)
    for model, title in zip(models, model_titles(models), strict=True):
        say(f"measuring {model}")
        measurements = measure_model(load_encoder(model), title, scenes, say)
        Record(dataset.fingerprint, count, seed, measurements).write(folder / f"{title}.json")


if __name__ == "__main__":
    sys.exit(main())
