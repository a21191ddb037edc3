"""The sections of the benchmark of speed that compare ways to embed the same documents, in turns in one process."""

from __future__ import annotations

import tempfile
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common.files import say
from benchmarks.common.speed_sample import build_model, make_sample
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ciea_hf import CIEAModel
    from ciea_hf.data import RetrievalDataset

    Tasks = Mapping[str, Mapping[str, Callable[[], object]]]

KINDS = ("texts", "captioned_images")
QUERIES = 4  # few, so that the documents take the time
SIDE = 300  # pixels of an image


def measure_sentence_transformers(
    size: str, documents: int, batch: int, rounds: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """Measure `encode` against `SentenceTransformer.encode` on the same folder.

    Args:
        size: Size of the model.
        documents: Number of documents of each kind.
        batch: Batch size.
        rounds: Number of repetitions.

    Yields:
        Values by kind of document and system.
    """
    library = import_optional("sentence_transformers", extra="eval")
    with tempfile.TemporaryDirectory() as folder:
        build_model(size).save_pretrained(folder)
        model = build_model(size)
        other = library.SentenceTransformer(folder, device="cpu")
        tasks: dict[str, dict[str, Callable[[], object]]] = {}
        for kind in KINDS:
            inputs = [_opened(item) for item in encoder_inputs(model, kind, documents)]
            ours, theirs = (encoder.encode(inputs, show_progress_bar=False) for encoder in (model, other))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
            tasks[kind] = {
                "sentence_transformers": _call(other.encode, inputs, batch_size=batch, show_progress_bar=False),
                "ciea": _call(model.encode, inputs, batch_size=batch, show_progress_bar=False),
            }
        yield from _in_turns(tasks, documents, rounds)


def measure_per_document(size: str, documents: int, batch: int, rounds: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Measure the dev evaluation of a training and the mining of negatives against `encode` of the same documents.

    Args:
        size: Size of the model.
        documents: Number of documents of each kind.
        batch: Batch size.
        rounds: Number of repetitions.

    Yields:
        Values by kind of document and system.
    """
    from ciea_hf.training.data.collator import Collator
    from ciea_hf.training.data.mining import mine_negatives
    from ciea_hf.training.data.negatives import MiningOptions
    from ciea_hf.training.loss.embedder import Embedder
    from ciea_hf.training.run.dev_evaluator import DevEvaluator
    from ciea_hf.training.run.encoder import TrainingEncoder

    model = build_model(size)
    embedder = Embedder(model).eval()
    collator = Collator(model.processor, chunk_size=batch)
    encoder = TrainingEncoder(model, embedder, collator)
    tasks: dict[str, dict[str, Callable[[], object]]] = {}
    for kind in KINDS:
        inputs = encoder_inputs(model, kind, documents)
        queries = make_sample(model, QUERIES, images=1).queries
        dataset = _dataset(inputs, queries)
        evaluator = DevEvaluator(dataset, model, collator, batch_size=batch)
        tasks[kind] = {
            "ciea": _call(_encode_all, model, inputs, queries, batch),
            "dev": _call(evaluator, embedder),
            "mining": _call(mine_negatives, encoder, dataset, MiningOptions(depth=5, window=(0, 5))),
        }
    yield from _in_turns(tasks, documents, rounds)


def encoder_inputs(model: CIEAModel, kind: str, documents: int) -> list[Any]:
    """Create inputs of `encode`: texts, or encoded images with captions."""
    texts = make_sample(model, documents, images=1).captions
    if kind == "texts":
        return list(texts)
    rng = np.random.default_rng(0)
    inputs = []
    for text in texts:
        buffer = BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (SIDE // 10, SIDE // 10, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE)).save(buffer, "JPEG")
        inputs.append({"text": text, "image": buffer.getvalue()})
    return inputs


def _encode_all(model: CIEAModel, documents: list[Any], queries: list[str], batch: int) -> None:
    model.encode_query(queries, batch_size=batch)
    model.encode_document(documents, batch_size=batch)


def _opened(item: Any) -> Any:
    return item if isinstance(item, str) else {**item, "image": Image.open(BytesIO(item["image"]))}


def _dataset(inputs: list[Any], queries: list[str]) -> RetrievalDataset:
    from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns

    texts = [item if isinstance(item, str) else item["text"] for item in inputs]
    images = [None if isinstance(item, str) else item["image"] for item in inputs]
    ids = [str(number) for number in range(len(inputs))]
    names = [f"q{number}" for number in range(len(queries))]
    qrels = {name: {ids[number]: 1} for number, name in enumerate(names)}
    corpus = corpus_from_columns(ids, texts, images)
    return RetrievalDataset(corpus, queries_from_columns(names, queries), qrels, name="documents", split="dev")


def _call(function: Callable[..., object], *args: Any, **kwargs: Any) -> Callable[[], object]:
    return lambda: function(*args, **kwargs)


def _in_turns(tasks: Tasks, documents: int, rounds: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Time the systems of each kind of document in turns, on one thread, after one round that is not timed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    values: dict[str, dict[str, Any]] = {}
    for kind, systems in tasks.items():
        found: dict[str, list[float]] = {system: [] for system in systems}
        for number in range(rounds + 1):
            for system, task in systems.items():
                start = time.process_time()
                task()
                if number:
                    found[system].append(time.process_time() - start)
        medians = {system: sorted(seconds)[len(seconds) // 2] for system, seconds in found.items()}
        values[kind] = {
            system: {"ms_per_document": round(1000 * median / documents, 3)} for system, median in medians.items()
        }
        say(f"{kind}: {values[kind]}")
        yield values
    torch.set_num_threads(threads)
