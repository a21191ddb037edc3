"""The section of the benchmark of speed that starts the command line for one query, beside transformers alone."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.files import say
from benchmarks.common.speed_sample import build_model, make_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DOCUMENTS = 1000
COMMAND_LINE = "import sys; from ciea_hf.cli import main; sys.exit(main())"
LOAD = """
import sys
from transformers import CLIPVisionModel, T5Model
CLIPVisionModel.from_pretrained(sys.argv[1])
T5Model.from_pretrained(sys.argv[2])
"""


def measure_cold_start(size: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Search an index for one query, and load the towers with transformers alone, in turns; yield the values so far.

    Args:
        size: Size of the model.
        rounds: Number of processes of each.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model_and_index(size, folder)
        commands = {
            "transformers": (LOAD, str(folder / "vision"), str(folder / "text")),
            "ciea": (COMMAND_LINE, "search", str(folder / "model"), str(folder / "index"), "w1 w2"),
        }
        found: dict[str, list[tuple[float, float]]] = {system: [] for system in commands}
        for _ in range(rounds):
            for system, command in commands.items():
                found[system].append(timed_process([sys.executable, "-c", *command]))
            values = {system: _summary(runs) for system, runs in found.items()}
            say(f"cold_start: {values}")
            yield values


def write_model_and_index(size: str, folder: Path) -> None:
    """Write a model, its towers as transformers saves them, and an index of texts."""
    from transformers import CLIPVisionModel, T5Model

    from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
    from ciea_hf.retrieval import encode_corpus

    model: Any = build_model(size)
    model.save_pretrained(folder / "model")
    CLIPVisionModel(model.config.vision_config).save_pretrained(folder / "vision")
    T5Model(model.config.text_config).save_pretrained(folder / "text")
    texts = make_sample(model, DOCUMENTS, images=1).captions
    corpus = corpus_from_columns([str(row) for row in range(DOCUMENTS)], texts, [None] * DOCUMENTS)
    dataset = RetrievalDataset(corpus, queries_from_columns([], []), {}, name="texts", split="test")
    encode_corpus(model, dataset, folder / "index")


def timed_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Run a command; return wall time and processor time."""
    before, start = _processor_time(), time.perf_counter()
    variables = None if environment is None else dict(environment)
    subprocess.run(command, check=True, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, _processor_time() - before


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _summary(runs: list[tuple[float, float]]) -> dict[str, float]:
    wall, processor = (sorted(values)[len(values) // 2] for values in zip(*runs, strict=True))
    return {"seconds": round(wall, 2), "processor_seconds": round(processor, 2)}
