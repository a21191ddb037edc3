"""Complementarity: does the image-only embedding describe what the caption names, or what it omits?

Each concept becomes a query ("which scene holds the owl"), which is compared with image-only embeddings of all test
scenes: the language model encodes the patches without the caption, either as the extractor returns them or as the
projector does. A concept is captioned in a scene, hidden in it (visible but not in the caption), or absent from it.

Examples:
  python -m benchmarks.complementarity              # MARVEL and CIEA as trained by `make demo`
  python -m benchmarks.complementarity MODEL ...
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.common.complementarity_report import draw, page
from benchmarks.common.files import CIEA, MARVEL, make_parser, model_titles, require_models, say, write_result
from benchmarks.common.measures import Measurement, measure

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the models and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("complementarity", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"CIEA models (default: {MARVEL} {CIEA})")
    parsed = parser.parse_args(arguments)
    models = parsed.models or [MARVEL, CIEA]
    require_models(models)
    from ciea_hf.data.builders.openmoji.build import plan_benchmark
    from ciea_hf.loading import load_dataset, load_encoder

    dataset, plan = load_dataset("demo", "test"), plan_benchmark()["test"]
    measurements: dict[str, Measurement] = {}
    for model, title in zip(models, model_titles(models), strict=True):
        say(f"measuring {model}")
        measurements[title] = measure(load_encoder(model), dataset, plan)
    write_result(parsed.output, "complementarity", page(measurements), draw(measurements), {"models": models}, dataset)
    return 0


if __name__ == "__main__":
    sys.exit(main())
