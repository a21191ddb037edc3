"""Robustness to corrupted captions: MRR@10 of image queries by the share of captions that are corrupted.

Captions of images are either removed (`drop`) or swapped between images (`swap`) in the evaluation.

Examples:
  python -m benchmarks.robustness                   # MARVEL and CIEA as trained by `make demo`
  python -m benchmarks.robustness MODEL_A MODEL_B
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
CORRUPTIONS = {"drop": "captions removed", "swap": "captions swapped"}


class Point(NamedTuple):
    """Comparison of two systems at one share of corrupted captions.

    Attributes:
        corruption: Name of the corruption.
        share: Share of corrupted captions, from 0 to 1.
        comparison: Comparison of the systems.
        intervals: Bootstrap interval of each system.
    """

    corruption: str
    share: float
    comparison: Comparison
    intervals: tuple[tuple[float, float], tuple[float, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the curves and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("robustness", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"two models (default: {MARVEL} {CIEA})")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=SHARES,
        help=f"shares of captions, from 0 to 1 (default: {' '.join(map(str, SHARES))})",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the selected captions (default: 0)")
    parsed = parser.parse_args(arguments)
    models = parsed.models or [MARVEL, CIEA]
    if len(models) != 2:
        parser.error(f"two models are required; got {len(models)}")
    require_models(models)
    from ciea_hf.loading import load_dataset, load_encoder

    dataset = load_dataset("demo", "test")
    points = measure([load_encoder(model) for model in models], dataset, parsed.shares, parsed.seed)
    titles = model_titles(models)
    configuration = {"models": models, "shares": list(parsed.shares), "seed": parsed.seed}
    write_result(parsed.output, "robustness", page(points, titles), draw(points, titles), configuration, dataset)
    return 0


def measure(models: Sequence[Encoder], dataset: RetrievalDataset, shares: Sequence[float], seed: int) -> list[Point]:
    """Compare two systems on the image queries for each corruption and share.

    Args:
        models: The two systems.
        dataset: Evaluation data.
        shares: Shares of captions, from 0 to 1.
        seed: Random seed of the selected captions.

    Returns:
        The points, ordered by corruption and then as in `shares`.
    """
    from ciea_hf.evaluation import evaluate
    from ciea_hf.evaluation.metrics import metric_columns
    from ciea_hf.evaluation.robustness import corrupt_captions
    from ciea_hf.evaluation.significance import bootstrap_interval, compare_runs
    from ciea_hf.retrieval import DocumentView

    kinds = dataset.query_kinds()
    qrels = {query: judged for query, judged in dataset.qrels.items() if kinds.get(query) == "image"}
    evaluated: dict[tuple[str | None, ...], list[Mapping[str, Mapping[str, float]]]] = {}
    points = []
    for corruption in CORRUPTIONS:
        for share in shares:
            captions = corrupt_captions(dataset, **{corruption: share}, seed=seed)
            key = tuple(captions)
            if key not in evaluated:  # with a share of 0, all corruptions are equal
                view = DocumentView(dataset, captions=captions)
                evaluated[key] = [evaluate(model, dataset, content=view).run for model in models]
            first, second = evaluated[key]
            comparison = compare_runs(first, second, qrels, [METRIC])[0]
            intervals = tuple(
                bootstrap_interval(metric_columns(run, qrels, [10])[1][METRIC]) for run in (first, second)
            )
            points.append(Point(corruption, share, comparison, (intervals[0], intervals[1])))
            say(f"{corruption} {share:.2f}: {comparison.a:.4f} {comparison.b:.4f}")
    return points


def page(points: Sequence[Point], titles: Sequence[str]) -> str:
    """Generate the result page.

    Args:
        points: Points of the curves.
        titles: Titles of the two systems.

    Returns:
        The page in Markdown.
    """
    from ciea_hf.evaluation.report import text_table

    rows = [["corruption", "share", *(f"{title} MRR@10" for title in titles), "difference", "95 % interval", "p"]]
    for point in points:
        comparison = point.comparison
        rows.append(
            [
                CORRUPTIONS[point.corruption],
                f"{point.share:.2f}",
                f"{comparison.a:.3f}",
                f"{comparison.b:.3f}",
                f"{comparison.difference:+.3f}",
                f"{comparison.low:+.3f} to {comparison.high:+.3f}",
                f"{comparison.p_value:.4f}",
            ]
        )
    return f"""# Robustness to corrupted captions

MRR@10 of {points[0].comparison.queries} image queries of OpenMoji Scenes (test split) when a share of the captions is
removed, or swapped between images, in the evaluation. One trained model per system. The difference is {titles[1]}
minus {titles[0]}, with a bootstrap interval and a paired randomisation test over queries.

{text_table(rows)}

![chart](robustness.png)
"""


def draw(points: Sequence[Point], titles: Sequence[str]) -> Figure:
    """Draw the curves of both systems with their intervals, in one panel for each corruption.

    Args:
        points: Points of the curves.
        titles: Titles of the two systems.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    panels = figure.subplots(1, len(CORRUPTIONS), sharey=True)
    for panel, (corruption, title) in zip(panels, CORRUPTIONS.items(), strict=True):
        curve = [point for point in points if point.corruption == corruption]
        shares = [point.share for point in curve]
        for number, name in enumerate(titles):
            means = [(point.comparison.a, point.comparison.b)[number] for point in curve]
            low, high = zip(*(point.intervals[number] for point in curve), strict=True)
            panel.plot(shares, means, marker="o", color=f"C{number}", label=name)
            panel.fill_between(shares, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        panel.set(title=title, xlabel="share of images", xticks=shares)
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="MRR@10 of image queries", ylim=(0, None))
    panels[0].legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())
