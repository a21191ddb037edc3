"""Retrieval data sets as tasks of mteb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset


def retrieval_task(dataset: RetrievalDataset, name: str | None = None) -> Any:
    """Create an mteb task from a data set in memory, with text queries and documents of text, image or both.

    Args:
        dataset: Corpus, queries and judgements.
        name: Name of the task; derived from the data set's name and fingerprint if `None`. mteb stores results by the
            names of model and task, so the names of different data sets must differ.

    Returns:
        An instance of `mteb.AbsTaskRetrieval`, ready for `mteb.evaluate`.
    """
    import_optional("mteb", extra="mteb")
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Task(AbsTaskRetrieval):  # type: ignore[misc, unused-ignore]  # mteb may be missing
        metadata = TaskMetadata(
            name=name or f"{''.join(filter(str.isalnum, dataset.name.title()))}{dataset.fingerprint[:6]}T2ITRetrieval",
            description=f"Retrieve text and captioned images of {dataset.name}.",
            reference=None,
            dataset={"path": dataset.name, "revision": dataset.fingerprint},
            type="Any2AnyRetrieval",
            category="t2it",
            modalities=["image", "text"],
            eval_splits=[dataset.split],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc: int | None = None, **_kwargs: Any) -> None:  # noqa: ARG002
            """Set the data, which is already in memory."""
            if not self.data_loaded:
                self.dataset = {"default": {dataset.split: _split(dataset)}}
                self.data_loaded = True

    return Task()


def _split(dataset: RetrievalDataset) -> Any:
    """Return a split in the format of mteb, which rejects `None` as a text but accepts it as a missing image."""
    texts = [text or "" for text in dataset.corpus.select_columns(["text"])[:]["text"]]
    corpus = dataset.corpus.select_columns(["id", "image"]).add_column("text", texts)
    judged = {query: dict(row) for query, row in dataset.qrels.items() if row}
    queries = dataset.queries.select_columns(["id", "text"])
    rows = [row for row, query in enumerate(queries["id"]) if query in judged]
    return {"corpus": corpus, "queries": queries.select(rows), "relevant_docs": judged, "top_ranked": None}
