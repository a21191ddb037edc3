"""A retrieval data set as a task of mteb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from ciea_hf.data import RetrievalDataset


def retrieval_task(dataset: RetrievalDataset, name: str | None = None) -> Any:
    """Make a task of mteb from a data set in memory: text queries, documents of text, picture or both.

    Args:
        dataset: Corpus, queries and judgements.
        name: What the task is called; made from the data set's name and fingerprint if None. mteb keeps results by the
            names of model and task, so that data sets of one name need names of their own.

    Returns:
        An instance of `mteb.AbsTaskRetrieval`, ready for `mteb.evaluate`.
    """
    import_optional("mteb", extra="mteb")
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Task(AbsTaskRetrieval):  # type: ignore[misc, unused-ignore]  # mteb may be missing
        metadata = TaskMetadata(
            name=name or f"{''.join(filter(str.isalnum, dataset.name.title()))}{dataset.fingerprint[:6]}T2ITRetrieval",
            description=f"Retrieve text and captioned pictures of {dataset.name}.",
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
            """Hand over what is in memory."""
            if not self.data_loaded:
                self.dataset = {"default": {dataset.split: _split(dataset)}}
                self.data_loaded = True

    return Task()


def _split(dataset: RetrievalDataset) -> Any:
    """One split as mteb keeps it. mteb refuses None as a text, and takes None for a missing picture."""
    texts = [text or "" for text in dataset.corpus.select_columns(["text"])[:]["text"]]
    corpus = dataset.corpus.select_columns(["id", "image"]).add_column("text", texts)
    judged = {query: dict(row) for query, row in dataset.qrels.items() if row}
    queries = dataset.queries.select_columns(["id", "text"])
    places = [place for place, query in enumerate(queries["id"]) if query in judged]
    return {"corpus": corpus, "queries": queries.select(places), "relevant_docs": judged, "top_ranked": None}
