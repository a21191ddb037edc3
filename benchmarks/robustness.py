"""How much does a system lean on captions? MRR@10 of image queries against the share of captions spoiled.

  python -m benchmarks.robustness                      # MARVEL and CIEA as `make demo` trained them
  python -m benchmarks.robustness MODEL_A MODEL_B

`drop` takes captions away from pictures, `swap` passes them around among pictures.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.files import CIEA, MARVEL, make_parser, model_titles, require_models, say, write_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation.significance import Comparison
    from ciea_hf.retrieval.encoding import Encoder

METRIC = "mrr@10"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SPOILERS = {"drop": "captions taken away", "swap": "captions exchanged"}


class Point(NamedTuple):
    """A point of the curve: what was spoiled, how much of it, the two systems there and their intervals."""

    spoiler: str
    share: float
    comparison: Comparison
    intervals: tuple[tuple[float, float], tuple[float, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the curves and write them; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"two models (default: {MARVEL} {CIEA})")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="shares of captions, from 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of captions")
    parsed = parser.parse_args(arguments)
    models = parsed.models or [MARVEL, CIEA]
    if len(models) != 2:
        parser.error(f"two models are compared; got {len(models)}")
    require_models(models)
    from ciea_hf.loading import load_dataset, load_encoder

    dataset = load_dataset("demo", "test")
    points = measure([load_encoder(model) for model in models], dataset, parsed.shares, parsed.seed)
    titles = model_titles(models)
    told = {"models": models, "shares": list(parsed.shares), "seed": parsed.seed}
    write_result(parsed.output, "robustness", page(points, titles), draw(points, titles), told, dataset)
    return 0


def measure(models: Sequence[Encoder], dataset: RetrievalDataset, shares: Sequence[float], seed: int) -> list[Point]:
    """Compare two systems on the image queries at every share of every spoiler.

    Args:
        models: The two systems.
        dataset: What is searched.
        shares: Shares of captions, from 0 to 1.
        seed: Of the choice of captions.

    Returns:
        The points, spoiler by spoiler, shares in their order.
    """
    from ciea_hf.evaluation import evaluate
    from ciea_hf.evaluation.metrics import metric_columns
    from ciea_hf.evaluation.robustness import corrupt_captions
    from ciea_hf.evaluation.significance import bootstrap_interval, compare_runs
    from ciea_hf.retrieval import DocumentView

    kinds = dataset.query_kinds()
    qrels = {query: judged for query, judged in dataset.qrels.items() if kinds.get(query) == "image"}
    measured: dict[tuple[str | None, ...], list[Mapping[str, Mapping[str, float]]]] = {}
    points = []
    for spoiler in SPOILERS:
        for share in shares:
            captions = corrupt_captions(dataset, **{spoiler: share}, seed=seed)
            if tuple(captions) not in measured:  # a share of 0 is the same for every spoiler
                view = DocumentView(dataset, captions=captions)
                measured[tuple(captions)] = [evaluate(model, dataset, content=view).run for model in models]
            first, second = measured[tuple(captions)]
            comparison = compare_runs(first, second, qrels, [METRIC])[0]
            intervals = tuple(bootstrap_interval(metric_columns(r, qrels, [10])[1][METRIC]) for r in (first, second))
            points.append(Point(spoiler, share, comparison, (intervals[0], intervals[1])))
            say(f"{spoiler} {share:.2f}: {comparison.a:.4f} {comparison.b:.4f}")
    return points


def page(points: Sequence[Point], titles: Sequence[str]) -> str:
    """Write the curves as a Markdown page."""
    from ciea_hf.evaluation.report import text_table

    head = ["spoiled", "share", *(f"{title} MRR@10" for title in titles), "difference", "95 % interval", "p"]
    rows = [
        [
            SPOILERS[point.spoiler], f"{point.share:.2f}", f"{point.comparison.a:.3f}", f"{point.comparison.b:.3f}",
            f"{point.comparison.difference:+.3f}", f"{point.comparison.low:+.3f} to {point.comparison.high:+.3f}",
            f"{point.comparison.p_value:.4f}",
        ]
        for point in points
    ]  # fmt: skip
    return f"""# Robustness to spoiled captions

MRR@10 of the {points[0].comparison.queries} image queries of OpenMoji Scenes (test) when a share of the captions of
pictures is taken away or exchanged at evaluation; one trained model of each system. The difference is {titles[1]} minus
{titles[0]}, with a bootstrap interval and a paired randomisation test over queries.

{text_table([head, *rows])}

![curves](robustness.png)
"""


def draw(points: Sequence[Point], titles: Sequence[str]) -> Figure:
    """Draw the curves: a panel for each spoiler, a line with its interval for each system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    panels = figure.subplots(1, len(SPOILERS), sharey=True)
    for panel, (spoiler, title) in zip(panels, SPOILERS.items(), strict=True):
        mine = [point for point in points if point.spoiler == spoiler]
        shares = [point.share for point in mine]
        for number, name in enumerate(titles):
            means = [(point.comparison.a, point.comparison.b)[number] for point in mine]
            low, high = zip(*(point.intervals[number] for point in mine), strict=True)
            panel.plot(shares, means, marker="o", color=f"C{number}", label=name)
            panel.fill_between(shares, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        panel.set(title=title, xlabel="share of pictures", xticks=shares)
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="MRR@10 of image queries", ylim=(0, None))
    panels[0].legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())
