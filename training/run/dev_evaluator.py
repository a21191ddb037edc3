"""Evaluation on the dev split during training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.evaluation.evaluator import as_run
from ciea_hf.evaluation.metrics import metrics_by_kind, ranking_metrics
from ciea_hf.retrieval.corpus import EncodedCorpus
from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.retrieval.encoding import EncodingOptions, encode_documents, encode_queries
from ciea_hf.training.distributed import gather_objects, process_rank, world_size
from ciea_hf.training.run.encoder import TrainingEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.data.collator import Collator

    ViewMaker = Callable[[RetrievalDataset], DocumentView]

DEPTH = 10
CUTOFFS = (1, 10)


class DevEvaluator:
    """Ranks the dev corpus with the model in training, as [`evaluate`] does.

    Each process embeds and searches its share of the corpus; the rankings are then merged. Documents without content,
    and those whose image is skipped, cannot be found.

    Args:
        dataset: Queries and judgements.
        model: Model in training.
        collator: Collator that tokenises; its `chunk_size` limits the forward passes.
        make_view: Makes the view of the corpus, or of a part of it; whole documents by default.
        batch_size: Number of inputs per forward pass.
        limit: Maximum number of documents to rank: the judged ones, and a sample of the others.
        seed: Seed of the sample.
        workers: Number of threads that decode images.

    Attributes:
        metric: Name of the metric that selects the best model.
    """

    metric = "mrr@10"

    def __init__(
        self,
        dataset: RetrievalDataset,
        model: CIEAModel,
        collator: Collator,
        make_view: ViewMaker = DocumentView,
        batch_size: int = 128,
        limit: int | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.model = model
        self.collator = collator
        self.options = EncodingOptions(batch_size=batch_size, num_workers=workers)
        self.queries = dataset.judged_queries()
        self.rows = _choose_rows(dataset, make_view(dataset).usable_rows(), limit, seed)
        share = self.rows[process_rank() :: world_size()]
        self.view = make_view(dataset.select(share))
        chunks = [-(-count // self.options.chunk_size) for count in (-(-len(self.rows) // world_size()), len(share))]
        self._idle_chunks = chunks[0] - chunks[1]

    def __call__(self, embedder: nn.Module) -> dict[str, float]:
        """Rank and score; every process must call this.

        Args:
            embedder: [`Embedder`] as wrapped by Accelerate, with the same weights in every process.

        Returns:
            MRR@10, NDCG@10 and Recall@1/10 over all queries, and MRR@10 by kind of positive (`"mrr@10/image"`); the
            same in every process.
        """
        with _evaluating(embedder):
            shares = gather_objects(self._search(TrainingEncoder(self.model, embedder, self.collator)))
        run: dict[str, dict[str, float]] = {query: {} for query in self.queries}
        for share in shares:
            for query, ranking in share.items():
                run[query] |= ranking
        metrics = ranking_metrics(run, self.dataset.qrels, CUTOFFS)
        kinds = metrics_by_kind(run, self.dataset.qrels, self.dataset.query_kinds(), CUTOFFS)
        by_kind = {f"mrr@10/{kind}": values["mrr@10"] for kind, values in kinds.items()} if len(kinds) > 1 else {}
        return {name: metrics[name] for name in ("mrr@10", "ndcg@10", "recall@1", "recall@10")} | by_kind

    def _search(self, encoder: TrainingEncoder) -> dict[str, dict[str, float]]:
        """Rank this process's share of the corpus."""
        queries = encode_queries(encoder, list(self.queries.values()), self.options.batch_size)
        embeddings, missing = encode_documents(encoder, self.view, 0, len(self.view), self.options)
        for _ in range(self._idle_chunks):  # engines that shard weights need equally many passes in every process
            encoder.encode_document([])
        if not len(self.view):
            return {}
        corpus = EncodedCorpus.from_embeddings(embeddings, self.view.ids, missing)
        return as_run(list(self.queries), corpus.index("flat", encoder.device).search(queries, DEPTH))


def _choose_rows(dataset: RetrievalDataset, usable: Sequence[int], limit: int | None, seed: int) -> list[int]:
    if limit is None or limit >= len(usable):
        return list(usable)
    ids = dataset.corpus_ids
    judged = {document for judgements in dataset.qrels.values() for document in judgements}
    relevant = [row for row in usable if ids[row] in judged]
    others = [row for row in usable if ids[row] not in judged]
    sample = np.random.default_rng(seed).permutation(len(others))[: max(limit - len(relevant), 0)]
    return sorted(relevant + [others[i] for i in sample.tolist()])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.train(False)
    try:
        yield
    finally:
        module.train(training)
