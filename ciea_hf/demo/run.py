"""The demonstration `make demo`: trains, evaluates, saves, loads and searches on the embedded benchmark.

All results are written to one folder; existing results are reused.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.demo.launching import launch_training
from ciea_hf.demo.report import Row, demo_table, example_queries
from ciea_hf.evaluation.metrics import rank_documents
from ciea_hf.evaluation.runs import read_run, write_run
from ciea_hf.files import atomic_write, write_json
from ciea_hf.utils import claim_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.evaluation.metrics import Run

FOLDER = Path("demo")
METRICS_FILE = "test_results.json"
RUN_FILE = "test.run"
SETTINGS_FILE = "demo.json"


@dataclass(frozen=True)
class System:
    """One of the compared systems.

    Attributes:
        title: Title in the table.
        name: Name of its folder.
        arguments: Training arguments in addition to the preset.
        content: Content of documents in the evaluation.
    """

    title: str
    name: str
    arguments: tuple[str, ...]
    content: str = "full"

    @property
    def start(self) -> str:
        """Stage whose model the training starts from: images are aligned with words first."""
        return "warm_up" if self.content == "caption" else "align"


SYSTEMS = (
    System("caption only", "caption_only", ("--content", "caption", "--use-extractor", "false"), "caption"),
    System("MARVEL", "marvel", ("--use-extractor", "false", "--lambda", "0")),
    System("CIEA", "ciea", ("--use-extractor", "true")),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration.

    Args:
        arguments: Command line; `sys.argv` if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="output folder (default: demo)")
    parser.add_argument("--steps", type=int, help="training steps of each system (default: that of the preset)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the training (default: 0)")
    parsed = parser.parse_args(arguments)
    run_demo(parsed.output, parsed.steps, parsed.seed)
    return 0


def run_demo(output: Path, steps: int | None = None, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Run the demonstration.

    Args:
        output: Output folder.
        steps: Training steps of each system after the common warm-up; that of the preset if None.
        seed: Random seed of the training.

    Returns:
        Test results and training time by system.
    """
    start = time.perf_counter()
    try:
        claim_manifest(output / SETTINGS_FILE, {"steps": steps, "seed": seed})
    except ValueError as error:
        raise SystemExit(str(error)) from error
    _say("1/6  Benchmark: OpenMoji Scenes, built on first use and cached")
    from ciea_hf.data import load_retrieval_dataset
    from ciea_hf.data.builders.openmoji.build import benchmark_folder

    _say(f"     {benchmark_folder()}")
    test = load_retrieval_dataset("demo", split="test")
    seconds = _train_systems(output / "runs", steps, seed)
    _say("4/6  Evaluation on the test split: 1,000 scenes and 250 texts with unseen templates and caption pairs")
    results = {system.name: _evaluate(output / "runs" / system.name, system, test) for system in SYSTEMS}
    rows = []
    for system in SYSTEMS:
        found = results[system.name]
        rows.append(Row(system.title, found["by_kind"], seconds[system.name], found["image_queries"]))
    table = demo_table(rows)
    _say(f"\n{table}\n")
    with atomic_write(output / "table.md") as path:
        path.write_text(table + "\n", encoding="utf-8")
    _say("5/6  The trained CIEA model, saved and loaded with AutoModel")
    model = _export(output, "ciea", results["ciea"])
    run = read_run(output / "runs" / "ciea" / RUN_FILE)
    examples = list(example_queries(test, run).values())
    _compare_scenes(output, model, test, examples[0], run)
    _say("6/6  Search: the first test query of each outcome; relevant documents are marked *")
    _search(output, model, examples)
    page = _index_for_page(output, {"ciea": model, "marvel": _export(output, "marvel", results["marvel"])})
    minutes = (time.perf_counter() - start) / 60
    _say(f"\nDone in {minutes:.1f} minutes. Model: {model}  Contact sheet: {output / 'results.png'}")
    _say(f"Search on a page, with CIEA and MARVEL side by side (make demo-app, or with the extra app):\n{page}")
    return {name: {**results[name], "training_seconds": seconds[name]} for name in results}


def _train_systems(folder: Path, steps: int | None, seed: int) -> dict[str, float]:
    """Train all systems from a common start, and return the training time of each in seconds."""
    _say("2/6  The start of all systems: warm-up of the language model on texts, alignment of patches and words")
    start = launch_training(
        folder / "start", ("--stage", "warm_up,align", "--use-extractor", "false", "--seed", str(seed))
    )
    _say("3/6  Training: caption only, MARVEL (images, no extractor, no L_comp) and CIEA, with equal numbers of steps")
    common = ["--stage", "in_batch", "--seed", str(seed)]
    if steps is not None:
        common += ["--max-steps", str(steps)]
    seconds = {}
    for system in SYSTEMS:
        _say(f"     {system.title}")
        model = ("--model", str(start / system.start / "best"))
        stage = launch_training(folder / system.name, (*common, *model, *system.arguments)) / "in_batch"
        seconds[system.name] = float(_read_json(stage / "result.json")["seconds"])
    return seconds


def _evaluate(folder: Path, system: System, test: RetrievalDataset) -> dict[str, Any]:
    path = folder / METRICS_FILE
    if path.is_file():
        return _read_json(path)
    from ciea_hf.demo.image_queries import image_query_measures
    from ciea_hf.evaluation import evaluate
    from ciea_hf.loading import load_encoder
    from ciea_hf.modeling import CIEAModel

    model = load_encoder(str(folder / "in_batch" / "best"))
    result = evaluate(model, test, content=system.content)
    write_run(result.run, folder / RUN_FILE, tag=system.name)
    content = result.to_dict() | {"image_queries": {}}
    if isinstance(model, CIEAModel) and system.content != "caption":
        content["image_queries"] = image_query_measures(model, test)
    write_json(path, content)
    return content


def _export(output: Path, system: str, results: dict[str, Any]) -> Path:
    """Load the best model of a system with AutoModel and save it, with its run and test results in the card."""
    from transformers import AutoModel

    from ciea_hf.model_cards import write_model_card

    folder = output / system
    stage = output / "runs" / system / "in_batch"
    AutoModel.from_pretrained(stage / "best").save_pretrained(folder)
    run = _read_json(stage / "run.json")
    names = ("command", "config", "versions", "git_revision", "seed", "base_model", "datasets")
    record = {name: run[name] for name in names}
    measured = {name: value for name, value in results.items() if name != "image_queries"}
    write_model_card(folder, run=record, results=measured)
    return folder


def _compare_scenes(output: Path, model_folder: Path, test: RetrievalDataset, query: str, run: Run) -> None:
    """Load the saved model, and compare a query with its relevant scene and with the best other one."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(model_folder)
    _say(f"     {model_folder}: {type(model).__name__}, embeddings of {model.config.hidden_size} dimensions")
    text = test.query_texts[query]
    relevant = next(iter(test.qrels[query]))
    images = [hit for hit in rank_documents(run[query]) if test.document_kinds[hit] == "image"]
    other = next(hit for hit in images if hit not in test.qrels[query])
    _say(f'     "{text}"')
    for name, document in (("scene.png", relevant), ("other.png", other)):
        row = test.corpus[test.corpus_ids.index(document)]
        row["image"].save(output / name)
        embedding = model.encode_document({"text": row["text"], "image": output / name})
        similarity = model.similarity(model.encode_query(text), embedding).item()
        _say(f'     {similarity:.3f}  {output / name}, "{row["text"]}"')


def _search(output: Path, model: Path, queries: Sequence[str]) -> None:
    sheet = str(output / "results.png")
    arguments = ["search", str(model), "demo", "--top-k", "5", "--contact-sheet", sheet, "--no-cache"]
    for query in queries:
        arguments += ["--query-id", query]
    _say("     ciea " + " ".join(arguments))
    _run_command(arguments)


def _index_for_page(output: Path, models: dict[str, Path], dataset: str = "demo") -> str:
    """Index the test split with each model, and return the command that opens the page over them."""
    pairs = []
    for name, model in models.items():
        index = output / f"{name}.index"
        _run_command(["index", str(model), dataset, "--output", str(index)])
        pairs.append(f"{model} {index}")
    return f"ciea demo-app {' --compare '.join(pairs)}"


def _run_command(arguments: Sequence[str]) -> None:
    from ciea_hf.cli import main as ciea

    if status := ciea(arguments):
        raise SystemExit(status)


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
