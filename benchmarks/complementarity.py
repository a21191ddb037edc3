"""What does the image part of an embedding say: what the caption names, or what it leaves out?

  python -m benchmarks.complementarity                 # MARVEL and CIEA as `make demo` trained them
  python -m benchmarks.complementarity MODEL ...

Every concept becomes a query of its own ("which scene holds the owl") and is compared with the image part of every test
scene: the language model over the patches alone, without the caption, as the extractor gives them and as the projector
does. A concept is captioned in a scene, hidden in it (shown, not captioned), or absent from it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.common.complementarity_report import draw, page
from benchmarks.common.files import CIEA, MARVEL, make_parser, model_titles, require_models, say, write_result
from benchmarks.common.measures import Measured, measure

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the models and write what is found; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"CIEA models (default: {MARVEL} {CIEA})")
    parsed = parser.parse_args(arguments)
    models = parsed.models or [MARVEL, CIEA]
    require_models(models)
    from ciea_hf.data.builders.openmoji.build import plan_benchmark
    from ciea_hf.loading import load_dataset, load_encoder

    dataset, plan = load_dataset("demo", "test"), plan_benchmark()["test"]
    found: dict[str, Measured] = {}
    for model, title in zip(models, model_titles(models), strict=True):
        say(f"measuring {model}")
        found[title] = measure(load_encoder(model), dataset, plan)
    write_result(parsed.output, "complementarity", page(found), draw(found), {"models": models}, dataset)
    return 0


if __name__ == "__main__":
    sys.exit(main())
