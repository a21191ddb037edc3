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
    parsed = parser.parse_args(arguments)
    models = parsed.models or [CIEA]
    require_models(models)
    from ciea_hf.data.builders.openmoji.build import plan_benchmark
    from ciea_hf.loading import load_dataset, load_encoder

    dataset = load_dataset("demo", "test")
    scenes = sample_scenes(dataset, plan_benchmark()["test"], parsed.scenes, parsed.seed)
    folder = parsed.output / NAME
    for model, title in zip(models, model_titles(models), strict=True):
        say(f"measuring {model}")
        measurements = measure_model(load_encoder(model), title, scenes, say)
        Record(dataset.fingerprint, len(scenes), parsed.seed, measurements).write(folder / f"{title}.json")
    records = [Record.read(path) for path in sorted(folder.glob("*.json"))]
    conditions = dataset.fingerprint, len(scenes), parsed.seed
    rows = []
    for record in records:
        if (record.data, record.scenes, record.seed) == conditions:
            rows += record.measurements
    configuration = {
        "models": list(dict.fromkeys(row.model for row in rows)),
        "scenes": len(scenes),
        "seed": parsed.seed,
    }
    write_result(parsed.output, NAME, make_page(rows, len(scenes)), draw(rows), configuration, dataset)
    return 0


if __name__ == "__main__":
    sys.exit(main())
